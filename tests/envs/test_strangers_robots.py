"""Robots that others register with Gymnasium: what they have of their own is kept, or refused in one line."""

import sys

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.envs import generic
from jepa_mpc.errors import UserError
from jepa_mpc.workers import run_parallel

MODULE = '''
import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.registration import register

XML = """<mujoco model="swing"><option timestep="0.02"/><worldbody><light pos="0 0 3"/>
<body><joint name="hinge" axis="0 1 0" damping="0.1"/><geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.05"/></body>
</worldbody><actuator><motor joint="hinge" gear="{gear}" {limit}/></actuator></mujoco>"""

class Swing(MujocoEnv):
    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 50}

    def __init__(self, limit='ctrllimited="true" ctrlrange="-1 1"', gear=1, **kwargs):
        import tempfile
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(XML.format(limit=limit, gear=gear))
            file.flush()
            super().__init__(file.name, 1, gym.spaces.Box(-np.inf, np.inf, (2,), np.float64), **kwargs)

    def step(self, action):
        self.do_simulation(action, self.frame_skip)
        return np.zeros(2), 0.0, False, False, {}

    def reset_model(self):
        self.set_state(self.np_random.uniform(-1, 1, 1), np.zeros(1))
        return np.zeros(2)

here = __name__ + ":Swing"
register("Swing-v0", here, max_episode_steps=140)
register("SwingShort-v0", here, max_episode_steps=40)
register("SwingLong-v0", here)
register("SwingLimitless-v0", here, kwargs={"limit": ""})
register("SwingWild-v0", here, kwargs={"gear": 1e8})
register("SwingScaled-v0", lambda: gym.wrappers.RescaleAction(Swing(), -2.0, 2.0))
for name, wrapped in (
    ("Rewarded", gym.wrappers.TransformReward.wrapper_spec(func=lambda reward: reward + 3)),
    ("Sticky", gym.wrappers.StickyAction.wrapper_spec(repeat_action_probability=0.1)),
    ("Endless", gym.wrappers.Autoreset.wrapper_spec()),
):
    register(f"Swing{name}-v0", here, additional_wrappers=(wrapped,))
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    import gymnasium as gym

    folder = tmp_path_factory.mktemp("stranger")
    (folder / "strangers_robots.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    sys.modules.pop("strangers_robots", None)
    for name in [name for name in gym.registry if name.startswith("Swing")]:
        del gym.registry[name]


def named(name):
    return f"gym/strangers_robots:{name}-v0"


def picture_and_pose(name):
    env = envs.make(name)
    return env.reset(seed=3)[0], env.qpos


def test_a_robot_is_found_by_its_module_in_every_process():
    spec = envs.get_task(named("Swing"))
    assert spec.name == named("Swing")
    assert spec.angles == (True,)
    ((picture, pose),) = run_parallel(picture_and_pose, [(named("Swing"),)], 1)
    here = picture_and_pose(named("Swing"))
    np.testing.assert_array_equal(picture, here[0])
    np.testing.assert_array_equal(pose, here[1])
    assert envs.get_task("gym/Swing-v0").name == "gym/Swing-v0"  # registered by now


@pytest.mark.parametrize(
    ("name", "lengths"), [("SwingLong", (200, 50, 100)), ("Swing", (70, 50, 70)), ("gym/Hopper-v5", (200, 50, 100))]
)
def test_a_time_limit_bounds_episodes_and_budgets(name, lengths):
    """A step is two control steps of 0.02 s: 140 of these are 70."""
    spec = envs.get_task(name if "/" in name else named(name))
    assert (spec.episode_len, spec.budget, spec.far_budget) == lengths


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (named("SwingShort"), "ends after 40 steps, of which one here lasts 2: too short for goals 25 ahead"),
        (named("SwingLimitless"), "the actions of MuJoCo's model 'swing' have no bounds"),
        ("dmc/lqr-lqr_2_1", "the actions of MuJoCo's model 'LQR' have no bounds"),
        (
            named("SwingSticky"),
            "SwingSticky-v0 has the wrapper StickyAction, whose memory no state holds; make it without",
        ),
        (
            named("SwingEndless"),
            "SwingEndless-v0 has the wrapper Autoreset, whose memory no state holds; make it without",
        ),
        (named("Missing"), "Gymnasium cannot make 'strangers_robots:Missing-v0': "),
        ("gym/no_such_robots:Swing-v0", "no module 'no_such_robots' for 'gym/no_such_robots:Swing-v0'"),
    ],
)
def test_what_would_be_lost_is_refused_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        envs.get_task(name)
    assert "\n" not in str(caught.value)


def test_wrappers_of_its_own_are_kept():
    plain, scaled, rewarded = (envs.make(named(name)) for name in ("SwingLong", "SwingScaled", "SwingRewarded"))
    np.testing.assert_array_equal([scaled.action_space.low, scaled.action_space.high], [[-2], [2]])
    plain.reset(seed=0)
    start = plain.get_state()
    for env, action in ((plain, 0.4), (scaled, 0.8)):
        env.reset(seed=0)
        env.set_state(start)
        env.advance(np.array([action]))
    np.testing.assert_allclose(scaled.qpos, plain.qpos, atol=1e-7)
    rewarded.reset(seed=0)
    assert rewarded.advance(np.zeros(1)) == 6  # of two control steps


@pytest.mark.parametrize("name", [named("SwingLimitless"), "dmc/lqr-lqr_2_1"])
def test_a_bound_of_ones_own_makes_endless_actions_finite(name):
    env, other = (generic.make_env(name, 1, 64, True, action_bound=bound) for bound in (0.5, 2.0))
    np.testing.assert_array_equal([env.action_space.low, env.action_space.high], [[-0.5], [0.5]])
    poses = []
    for each in (env, other):
        each.reset(seed=0)
        each.advance(np.full(1, 7.0))  # clipped to what each may do
        poses.append(each.qpos)
    assert not np.array_equal(*poses)


@pytest.mark.parametrize("name", [named("SwingWild"), "dmc/cartpole-swingup"])
def test_physics_that_blow_up_are_an_error_and_never_a_silent_reset(name):
    env = envs.make(name)
    env.reset(seed=0)
    state = env.get_state()
    env.advance(np.zeros(1))
    if name.startswith("dmc/"):
        env.data.qvel[:] = 1e30
    with pytest.raises(envs.Diverged, match="has diverged") as caught:
        [env.advance(np.ones(1)) for _ in range(1000)]
    assert "\n" not in str(caught.value)
    env.set_state(state)  # and goes on afterwards
    env.advance(np.zeros(1))
    env.reset(seed=0)
    env.advance(np.zeros(1))
