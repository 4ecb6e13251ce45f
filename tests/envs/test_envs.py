from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jepa_mpc import envs
from jepa_mpc.envs import generic, registry
from jepa_mpc.envs.mujoco_env import suite
from jepa_mpc.envs.registry import SUITE_NAMES
from jepa_mpc.envs.rendering import View
from jepa_mpc.errors import UserError

TASKS = envs.task_names()
# Of the suites' own names, those whose episodes differ in the model, or whose pictures or rewards read stale positions.
FEW = (
    *("dmc/cartpole-swingup", "dmc/point_mass-hard", "dmc/manipulator-bring_ball", "dmc/quadruped-escape"),
    *("dmc/swimmer-swimmer6", "gym/Ant-v5"),
)
# Where a shadow fills much of the picture, its edge alone is more than half a level on average.
COARSER = {"walker": 1.0, "gym/Pusher-v5": 0.7}
REST = sorted(name for name in {*SUITE_NAMES} - {*TASKS, *FEW} if "lqr" not in name)  # without bounds of action


@pytest.fixture(scope="module", params=[*TASKS, *FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def task(request):
    return request.param


@pytest.fixture(scope="module")
def pair(task):
    """Two environments of the task; what came before in them is not to matter."""
    both = envs.make(task), envs.make(task)
    yield both
    for env in both:
        env.close()


@pytest.fixture(params=TASKS)
def own_task(request):
    return request.param


def trajectory(env, seed, num_steps=12, actions=0):
    rng = np.random.default_rng(actions)
    picture, _ = env.reset(seed=seed)
    pictures, poses = [picture], [env.qpos]
    for _ in range(num_steps):
        picture, reward, terminated, truncated, _ = env.step(
            rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        )
        assert (type(reward), terminated, truncated) == (float, False, False)
        pictures.append(picture)
        poses.append(env.qpos)
    return np.stack(pictures), np.stack(poses)


@pytest.mark.filterwarnings("ignore:.*not having a spec.*")
def test_passes_gymnasiums_check(task):
    check_env(envs.make(task))


def test_same_seed_and_actions_same_trajectory_bit_for_bit(pair):
    env, other = pair
    pictures, poses = trajectory(env, seed=3)
    for again in (other, env):  # nor does it matter what came before
        for expected, found in zip((pictures, poses), trajectory(again, seed=3), strict=True):
            np.testing.assert_array_equal(found, expected)
    begun_alike, moved_otherwise = trajectory(env, seed=3, actions=1)[1][[0, -1]]
    np.testing.assert_array_equal(begun_alike, poses[0])
    assert not np.array_equal(moved_otherwise, poses[-1])


def test_the_seed_decides_where_episodes_begin(pair):
    (env, _), starts = pair, []
    for seed in (3, None, None, 4, 3, None, None):  # without one, the stream goes on
        env.reset(seed=seed)
        starts.append(env.get_state())
    np.testing.assert_array_equal(starts[:3], starts[4:])
    assert len({start.tobytes() for start in starts}) == 4


def test_restored_state_gives_the_same_picture_and_the_same_future(pair):
    (env, _), rng = pair, np.random.default_rng(0)
    trajectory(env, seed=1)
    state, picture = env.get_state(), env.render()
    actions = rng.uniform(env.action_space.low, env.action_space.high, (40, *env.action_space.shape))
    future = [[env.advance(action), *env.qpos] for action in actions]
    trajectory(env, seed=2)
    env.set_state(state)
    np.testing.assert_array_equal(env.render(), picture)
    np.testing.assert_array_equal([[env.advance(action), *env.qpos] for action in actions], future)


def test_a_second_environment_does_not_change_the_first_ones_pictures(task, pair):
    env, _ = pair
    alone, _ = trajectory(env, seed=5)
    other = envs.make(task, image_size=96)
    other.reset(seed=9)
    together, _ = trajectory(env, seed=5)
    other.close()
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(trajectory(env, seed=5)[0], alone)


def test_step_is_advance_with_a_picture(pair):
    stepped, advanced = pair
    stepped.reset(seed=0), advanced.reset(seed=0)
    action = stepped.action_space.high
    picture, *_ = stepped.step(action)
    advanced.advance(action)
    np.testing.assert_array_equal(picture, advanced.render())


def test_actions_beyond_the_bounds_are_clipped(pair):
    bounded, beyond = pair
    bounded.reset(seed=0), beyond.reset(seed=0)
    bounded.advance(bounded.action_space.high)
    beyond.advance(bounded.action_space.high * 7)
    np.testing.assert_array_equal(bounded.qpos, beyond.qpos)


@pytest.mark.parametrize("name", ["reacher", "two_room", "push_t"])
def test_what_is_given_out_is_the_callers_own(name):
    env, geom = envs.make(name), envs.get_task(name).effector or "agent"
    picture, _ = env.reset(seed=0)
    env.advance(env.action_space.high)
    given = [picture, env.render(), env.qpos, env.qvel, env.get_state(), env.position(geom)]
    kept = [value.copy() for value in given]
    env.advance(env.action_space.high)
    env.render()
    for value, expected in zip(given, kept, strict=True):  # what happens later does not change it
        np.testing.assert_array_equal(value, expected)
    state, shown = env.get_state(), env.render()
    for value in (env.qpos, env.qvel, env.get_state(), env.render(), env.position(geom)):
        value[:] = 7  # nor does writing into it change what happens
    np.testing.assert_array_equal(env.get_state(), state)
    np.testing.assert_array_equal(env.render(), shown)
    env.set_state(state)
    kept = state.copy()
    state[:] = 7  # nor what was handed over
    np.testing.assert_array_equal(env.get_state(), kept)


def test_set_pose_puts_the_simulation_at_rest(pair):
    env, _ = pair
    env.reset(seed=0)
    pose = env.qpos
    env.advance(env.action_space.high)
    env.set_pose(pose)
    np.testing.assert_array_equal(env.qpos, pose)
    assert not env.qvel.any()


def test_fast_pictures_are_within_half_a_level_of_the_defaults(own_task):
    fast, default = envs.make(own_task), envs.make(own_task, fast_rendering=False)
    differences = []
    for seed in range(8):
        pictures = [env.reset(seed=seed)[0].astype(float) for env in (fast, default)]
        differences.append(np.abs(pictures[0] - pictures[1]).mean())
    assert np.mean(differences) < COARSER.get(own_task, 0.5)
    assert any(differences) == (own_task not in ("two_room", "push_t"))  # which have one way to draw


def test_pictures_are_those_that_checkpoints_learned_from(own_task):
    """The first frame of each task under seed 0, as it was then; another camera, light or colour shows at once."""
    with np.load(Path(__file__).parent / "golden/pictures.npz") as golden:
        expected = golden[own_task.replace("/", "-")].astype(float)
    picture, _ = envs.make(own_task).reset(seed=0)
    assert np.abs(picture - expected).mean() < 0.5


def test_reachers_fingertip_is_where_two_links_of_twelve_centimetres_put_it():
    env, rng = envs.make("reacher"), np.random.default_rng(0)
    for shoulder, wrist in rng.uniform(-2.5, 2.5, (5, 2)):
        env.set_pose([shoulder, wrist])
        angles = np.array([shoulder, shoulder + wrist])
        place = [*0.12 * np.array([np.cos(angles), np.sin(angles)]).sum(1)]
        np.testing.assert_allclose(env.position("finger")[:2], place, atol=1e-9)


def test_the_pose_on_the_target_is_the_nearer_of_two():
    env, goal_pose = envs.make("reacher"), envs.get_task("reacher").suite[0].goal_pose
    for seed in range(10):
        env.reset(seed=seed)
        here, pose, target = env.qpos, goal_pose(env), env.position("target")
        other = np.array([pose[0] + pose[1], -pose[1]])  # the elbow out to the other side
        turns = []
        for each in (pose, other):
            shoulder, wrist = each - here
            turns.append(max(abs((shoulder + np.pi) % (2 * np.pi) - np.pi), abs(wrist)))
            env.set_pose(each)
            np.testing.assert_allclose(env.position("finger"), target, atol=1e-6)
        assert turns[0] <= turns[1]


def test_reacher_hides_its_target():
    # Under one pose, the suite draws a new target at every reset; only a visible one would change the picture.
    env = envs.make("reacher")
    pictures = []
    for seed in range(3):
        env.reset(seed=seed)
        env.set_pose([0.5, 1.0])
        pictures.append(env.render())
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert pictures[0].std() > 5


@pytest.mark.parametrize(("name", "target"), [("gym/Reacher-v5", slice(2, 4)), ("gym/Pusher-v5", slice(9, 11))])
def test_targets_that_are_part_of_the_pose_are_hidden_and_free(name, target):
    env, spec = envs.make(name), envs.get_task(name)
    env.reset(seed=0)
    pose, pictures = env.qpos, []
    moved = pose.copy()
    moved[target] += 0.1
    for qpos in (pose, moved):
        env.set_pose(qpos)
        pictures.append(env.render())
    np.testing.assert_array_equal(*pictures)
    assert spec.pose.success(moved, pose)
    assert pictures[0].std() > 5


def test_a_limit_makes_the_same_action_weaker():
    calm, strong = envs.make("gym/Reacher-v5"), generic.make_env("gym/Reacher-v5", 2, 64, True, action_bound=1.0)
    np.testing.assert_allclose(calm.action_space.high, 0.2 * strong.action_space.high)
    np.testing.assert_allclose(calm.action_space.low, 0.2 * strong.action_space.low)
    poses = []
    for env in (calm, strong):
        env.reset(seed=0)
        env.advance(np.ones(2))  # clipped to what each may do
        poses.append(env.qpos[:2])
    assert (np.abs(poses[0]) < np.abs(poses[1])).all()


def test_the_strict_rule_is_half_the_tolerance_or_one_of_its_own():
    assert envs.get_task("two_room").strict.tolerance == 8
    cube = envs.get_task("cube")
    here = np.zeros(21)
    here[17] = 1
    turned = here.copy()
    turned[[17, 20]] = np.cos(np.deg2rad(20) / 2), np.sin(np.deg2rad(20) / 2)
    assert cube.pose.success(turned, here)
    assert not cube.strict.success(turned, here)  # 20° where 15 are allowed
    turned[[17, 20]] = np.cos(np.deg2rad(10) / 2), np.sin(np.deg2rad(10) / 2)
    assert cube.strict.success(turned, here)


@pytest.mark.parametrize(
    ("pose", "goal", "error"),
    [
        ([0.0, 0.0], [0.02, -0.03], 0.03),
        ([2 * np.pi + 0.01, 0.0], [0.0, 0.0], 0.01),  # the shoulder turns without limit
        ([np.pi - 0.01, 0.0], [-np.pi + 0.01, 0.0], 0.02),
        ([0.0, 2 * np.pi], [0.0, 0.0], 2 * np.pi),  # the wrist does not
    ],
)
def test_reacher_error_wraps_the_shoulder_alone(pose, goal, error):
    spec = envs.get_task("reacher").pose
    assert spec.error(np.array(pose), np.array(goal)) == pytest.approx(error, abs=1e-12)
    assert spec.success(np.array(pose), np.array(goal)) == (error < 0.05)


@pytest.mark.parametrize(
    ("name", "offsets", "kept"),
    [
        ("reacher", {0: 0.049, 1: -0.049}, True),
        ("reacher", {1: 0.051}, False),
        ("two_room", {0: 11, 1: 11}, True),  # 15.6 of 224 pixels
        ("two_room", {0: 12, 1: 12}, False),
        ("push_t", {0: 14, 3: 14, 4: np.deg2rad(-19)}, True),  # agent and block together 19.8 of 512 pixels
        ("push_t", {0: 15, 3: 15}, False),
        ("push_t", {4: np.deg2rad(21)}, False),
        ("cube", {0: 3.0, 14: 0.039}, True),  # wherever the arm is
        ("cube", {15: -0.041}, False),
        ("cube", {16: 0.041}, False),
        ("point_mass", {0: 0.014}, True),
        ("point_mass", {1: 0.016}, False),
        ("pendulum", {0: 2 * np.pi + 0.12}, True),  # 0.02 of a turn
        ("pendulum", {0: 0.13}, False),
        ("cartpole", {0: 0.071, 1: 0.12}, True),
        ("cartpole", {0: 0.073}, False),
        ("ball_in_cup", {0: 0.017, 1: 0.017, 3: 0.024}, True),
        ("ball_in_cup", {2: 0.018, 3: 0.018}, False),
        ("gym/Reacher-v5", {0: 2 * np.pi + 0.049, 1: 0.049}, True),
        ("gym/Reacher-v5", {1: 0.051}, False),
        ("gym/Pusher-v5", {0: 1.0, 7: 0.02, 8: 0.02}, True),
        ("gym/Pusher-v5", {7: 0.031}, False),
        ("walker", {1: 5.0, 2: 0.31, 0: 0.049}, True),
        ("walker", {3: 0.104, 4: 0.13, 5: 0.078, 6: 0.104, 7: 0.13, 8: 0.078}, True),
        *(
            ("walker", {joint: error}, False)
            for joint, error in zip(range(3, 9), (0.105, 0.132, 0.079) * 2, strict=True)
        ),
    ],
)
def test_what_counts_as_reached_is_what_the_protocols_say(name, offsets, kept):
    spec = envs.get_task(name)
    goal = np.zeros(len(spec.angles))
    here = goal.copy()
    here[list(offsets)] = list(offsets.values())
    assert spec.pose.success(here, goal) == kept


def test_published_protocols_have_their_published_lengths():
    for name in ("reacher", "two_room", "push_t", "cube"):
        spec = envs.get_task(name)
        assert (spec.goal_offset, spec.budget, spec.action_block, spec.far_budget) == (25, 50, 5, 100)
    reacher = envs.get_task("reacher")
    assert (reacher.effector, reacher.effector_tolerance, reacher.strict_steps) == ("finger", 0.01, 2)
    assert envs.make("reacher").step_seconds == pytest.approx(0.04)  # two control steps of 0.02 s


def test_rotations_are_compared_by_their_angle():
    test = envs.PoseTest((envs.Part((1, 2, 3, 4), 2 * np.pi, "rotation"),), 0.02, "of each range")
    half = np.deg2rad(30) / 2
    turned = np.array([0, np.cos(half), 0, np.sin(half), 0])
    assert test.error(turned, np.array([0, 1, 0, 0, 0])) == pytest.approx(30 / 360)
    assert test.error(turned, -turned) == pytest.approx(0, abs=1e-7)  # one rotation has two quaternions


def test_a_pose_is_as_far_off_as_its_worst_part_and_the_rest_is_free():
    test = envs.PoseTest((envs.Part((1, 2), 2.0), envs.Part((3,), 2.0, "angle")), 1.6, "tolerances")
    assert test.error(np.array([7.0, 3.0, 4.0, 0.0]), np.zeros(4)) == pytest.approx(2.5)  # a distance of 5
    assert test.error(np.array([7.0, 0.0, 0.0, 2 * np.pi + 1]), np.zeros(4)) == pytest.approx(0.5)
    assert not test.success(np.array([0.0, 3.0, 4.0, 0.0]), np.zeros(4))
    assert test.success(np.array([9.0, 0.0, 3.0, 0.0]), np.zeros(4))


def test_a_generic_task_reads_its_test_of_success_off_the_model():
    cartpole = envs.get_task("dmc/cartpole-swingup")
    rail, pole = cartpole.pose.parts
    assert (rail.coordinates, rail.scale, rail.kind) == ((0,), 3.6, "distance")  # from −1.8 to 1.8 m
    assert (pole.coordinates, pole.scale, pole.kind) == ((1,), 2 * np.pi, "angle")  # turns freely
    assert cartpole.angles == (False, True)
    assert cartpole.action_repeat == 4  # control steps of 0.01 s
    fish = envs.get_task("dmc/fish-swim")
    assert fish.pose.parts[3].kind == "rotation"
    assert fish.pose.parts[3].coordinates == (3, 4, 5, 6)


def test_every_name_of_the_suites_is_listed():
    newest: dict[str, int] = {}  # older versions are other robots' retired models
    for entry in gym.registry.values():
        if "gymnasium.envs.mujoco" in str(entry.entry_point):
            newest[entry.name] = max(entry.version, newest.get(entry.name, 0))
    theirs = [f"dmc/{domain}-{task}" for domain, task in suite.ALL_TASKS]
    theirs += [f"gym/{name}-v{version}" for name, version in newest.items()]
    assert sorted(SUITE_NAMES) == sorted(theirs)
    assert set(SUITE_NAMES) <= set(registry.TASKS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recher", r"unknown task 'recher'; did you mean reacher\?"),
        ("humanoid", r"unknown task 'humanoid'; did you mean dmc/humanoid-\w+"),
        ("dmc/reacher-eazy", r"did you mean dmc/reacher-easy or"),
        ("dmc/nothing-at-all", r"unknown task 'dmc/nothing-at-all'; "),
        ("gym/Reachr-v5", r"did you mean gym/Reacher-v5 or"),
        ("gym/Reacher-v2", r"Gymnasium cannot make 'Reacher-v2': .*gymnasium-robotics"),
        ("gym/CartPole-v1", r"CartPole-v1 has discrete actions"),
        ("?!", r"unknown task '\?!'; `jepa-mpc tasks` lists them"),
    ],
)
def test_tasks_that_cannot_be_had_are_refused_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        envs.get_task(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["walker-walk", "ball_in_cup-catch", "cartpole-swingup", "finger-spin"])
def test_the_suites_physics_and_rewards_are_left_as_they_are(name):
    """Ten physics steps to a control step, one, or two; rewards of touch, speed and pose."""
    ours, theirs = generic.make_env(f"dmc/{name}", 3, 64, True), suite.load(*name.split("-"), task_kwargs={"random": 0})
    theirs.reset()
    qpos = theirs.physics.data.qpos.copy()
    ours.set_pose(qpos)
    with theirs.physics.reset_context():
        theirs.physics.data.qpos[:] = qpos
    for action in np.random.default_rng(0).uniform(-1, 1, (15, *ours.action_space.shape)):
        reward = ours.advance(action)
        assert reward == pytest.approx(sum(theirs.step(action).reward for _ in range(3)), rel=1e-12)
        np.testing.assert_array_equal(ours.qpos, theirs.physics.data.qpos)
        np.testing.assert_array_equal(ours.qvel, theirs.physics.data.qvel)
    assert ours.data.time == pytest.approx(15 * ours.step_seconds)
    assert ours.step_seconds == pytest.approx(3 * theirs.control_timestep())


def test_gymnasiums_physics_are_left_as_they_are():
    ours, theirs = envs.make("gym/HalfCheetah-v5"), gym.make("HalfCheetah-v5").unwrapped
    ours.reset(seed=0), theirs.reset(seed=0)
    ours._inner.set_state(theirs.data.qpos, theirs.data.qvel)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    for action in actions:
        reward = ours.advance(action)
        _, expected, *_ = theirs.step(action)
        np.testing.assert_array_equal(ours.qpos, theirs.data.qpos)
        assert reward == expected


def test_a_view_of_its_own_looks_from_where_it_says():
    pictures = {}
    for name, view in (("above", View((0, 0, 0), 0.6)), ("turned", View((0, 0, 0), 0.6, azimuth=180.0))):
        env = generic.make_env("gym/Reacher-v5", 2, 64, True, camera=view, hidden_geoms=("target",))
        env.reset(seed=0)
        env.set_pose([0.5, 1.0, 0.1, 0.1])
        pictures[name] = env.render().astype(float)
    # From above, a quarter turn of the camera is a quarter turn of the picture, but for shading.
    quarter = np.rot90(pictures["above"], k=-1)
    assert np.abs(quarter - pictures["turned"]).mean() < 4 < np.abs(pictures["above"] - pictures["turned"]).mean()
