"""A robot of one's own: an MJCF file, a Gymnasium environment that a function makes, one without MuJoCo."""

import shutil
import sys

import gymnasium as gym
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from jepa_mpc import envs, places
from jepa_mpc.envs.base import Ended, EnvError
from jepa_mpc.errors import UserError
from jepa_mpc.eval import pairs
from jepa_mpc.pictures import square
from jepa_mpc.registry import same
from jepa_mpc.workers import run_parallel

ARM = str(ROOT / "tests/envs/robots/two_joints.xml")
MODULE = '''
import gymnasium as gym
import numpy as np

class Square(gym.Env):
    """A white square in a wide dark picture, which actions move; it ends an episode at the right edge."""
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    action_space = gym.spaces.Box(-1, 1, (2,), np.float64)
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.5, 0.5, 2)
        return self.place.copy(), {}

    def step(self, action):
        assert action.dtype == np.float64
        self.place = self.place + 0.1 * action
        return self.place.copy(), 1.0, bool(self.place[0] > 0.9), False, {}

    def render(self):
        picture = np.zeros((96, 128, 3), np.uint8)
        x, y = (48 + 40 * np.clip(self.place, -1, 1)).astype(int)
        picture[y - 6 : y + 6, 16 + x - 6 : 16 + x + 6] = 255
        return picture

class Kept(Square):
    def get_state(self):
        return self.place.copy()
    def set_state(self, state):
        self.place = np.array(state)

class Mute(Square):
    """Tells nothing in numbers."""
    observation_space = gym.spaces.Dict({"picture": gym.spaces.Box(0, 255, (96, 128, 3), np.uint8)})
    def reset(self, **options):
        super().reset(**options)
        return {"picture": self.render()}, {}
    def step(self, action):
        return {"picture": self.render()}, *super().step(action)[1:]

class Apart(Square):
    """Observes two vectors, of which neither is the state."""
    observation_space = gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-1, 1, (3,))])
    def reset(self, **options):
        return (super().reset(**options)[0], np.zeros(3)), {}
    def step(self, action):
        return (self.place, np.zeros(3)), *super().step(action)[1:]

def mute():
    return Mute()
def square():
    return Square()
def kept():
    return Kept()
def blind():
    return Square(render_mode=None)
def swing():
    return gym.wrappers.RescaleAction(gym.make("Pendulum-v1", render_mode="rgb_array"), -1.0, 1.0)
def hopper():
    return gym.make("Hopper-v5")
class Whole(Square):
    action_space = gym.spaces.Box(-5, 5, (2,), np.int64)
class Parts(Square):
    action_space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (1,)), "y": gym.spaces.Box(-1, 1, (1,))})
class Worded(Square):
    metadata = {"render_modes": ["rgb_array"], "render_fps": "20"}
class Old(Square):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]
class Growing(Square):
    def step(self, action):
        return np.append(self.place, 1.0), *super().step(action)[1:]
def images():
    return gym.wrappers.FlattenObservation(gym.make("CartPole-v1"))
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_robots.py").write_text(MODULE)
    shutil.copy(ARM, folder / "arm.xml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    sys.modules.pop("own_robots", None)
    envs.registry.TASKS._found.clear()


def first_picture(task):
    return envs.make(task).reset(seed=3)[0]


def test_a_model_file_is_a_task_in_every_process():
    spec = envs.get_task("arm.xml")
    assert (spec.name, spec.angles, spec.action_repeat) == ("arm.xml", (True, True), 4)
    assert [(part.coordinates, part.kind) for part in spec.pose.parts] == [((0,), "angle"), ((1,), "distance")]
    np.testing.assert_allclose([part.scale for part in spec.pose.parts], [2 * np.pi, np.deg2rad(300)])
    ((picture,),) = [[each] for each in run_parallel(first_picture, [("arm.xml",)], 1)]
    np.testing.assert_array_equal(picture, first_picture("arm.xml"))
    np.testing.assert_array_equal(picture, first_picture(ARM))  # wherever it lies


def test_a_file_has_one_name_and_one_place_for_its_data():
    assert envs.get_task(ARM).name == "two_joints.xml"
    assert places.dataset(ARM) == places.dataset("two_joints.xml") == places.home() / "data/two_joints.xml.h5"
    assert places.slug(f"{ARM}@aside") == "two_joints.xml@aside"
    assert same("here/arm.xml@a", "there/arm.xml@a")
    assert not same("arm.xml@a", "arm.xml")


def test_joints_begin_anywhere_within_their_ranges_at_rest():
    env = envs.make("arm.xml")
    poses = []
    for seed in range(200):
        env.reset(seed=seed)
        poses.append(env.qpos)
        assert not env.qvel.any()
    shoulder, elbow = np.array(poses).T
    limit = np.deg2rad(150)
    for values, low, high in ((shoulder, -np.pi, np.pi), (elbow, -limit, limit)):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)
        assert abs(values.mean()) < 0.1 * (high - low)


def test_an_action_is_each_actuators_control():
    """A motor of gear 1 at full control is a torque of 1 Nm: after one physics step, acceleration × time."""
    import mujoco

    env = envs.make("arm.xml")
    env.reset(seed=0)
    env.set_pose(np.zeros(2))
    model, data = mujoco.MjModel.from_xml_path("arm.xml"), None
    data = mujoco.MjData(model)
    data.ctrl[:] = [0.3, -1.0]
    mujoco.mj_step(model, data, 4)
    env.advance(np.array([0.3, -1.0]))
    np.testing.assert_allclose(env.qpos, data.qpos, atol=1e-12)
    np.testing.assert_allclose(env.qvel, data.qvel, atol=1e-12)


def test_cameras_and_free_views_differ_and_carry_their_names():
    pictures = {}
    for camera in ("", "@above", "@0", "@aside", "@90,-30", "@90,-30,3"):
        assert envs.get_task(f"arm.xml{camera}").name == f"arm.xml{camera}"
        pictures[camera] = first_picture(f"arm.xml{camera}").astype(int)
    np.testing.assert_array_equal(pictures[""], pictures["@above"])
    np.testing.assert_array_equal(pictures["@0"], pictures["@above"])
    others = [pictures[camera] for camera in ("@above", "@aside", "@90,-30", "@90,-30,3")]
    for i, one in enumerate(others):
        for other in others[:i]:
            assert np.abs(one - other).mean() > 5


@pytest.mark.parametrize("view", ["nan,nan", "inf,0", "90,-30,-1", "90,-30,1e30", "90,-30,1,nan,0,0"])
def test_a_view_that_shows_nothing_is_refused(view):
    with pytest.raises(EnvError, match=f"has no camera '{view}'; its cameras: above, aside; a free view is AZIMUTH"):
        envs.make(f"arm.xml@{view}")


def test_a_folder_may_have_the_sign_of_cameras_in_its_name(tmp_path):
    (folder := tmp_path / "user@corp").mkdir()
    shutil.copyfile(ROOT / "tests/envs/robots/two_joints.xml", folder / "arm.xml")
    for camera in ("", "@aside"):
        assert envs.get_task(f"{folder}/arm.xml{camera}").name == f"arm.xml{camera}"
        np.testing.assert_array_equal(first_picture(f"{folder}/arm.xml{camera}"), first_picture(f"arm.xml{camera}"))


def test_a_broken_file_says_where_and_why(tmp_path):
    (tmp_path / "broken.xml").write_text("<mujoco>\n<worldbody>\n</mujoco>")
    with pytest.raises(EnvError, match=r"broken.xml is no model that MuJoCo can load: .*number=2.*worldbody") as caught:
        envs.make(str(tmp_path / "broken.xml"))
    assert "\n" not in str(caught.value)


def test_pairs_of_a_file_that_has_changed_are_others(tmp_path):
    text = (ROOT / "tests/envs/robots/two_joints.xml").read_text()
    names = []
    for folder, mass in (("a", "600"), ("b", "900")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "arm.xml").write_text(text.replace('density="600"', f'density="{mass}"'))
        spec = envs.get_task(str(tmp_path / folder / "arm.xml"))
        pairs.held_out_pairs(spec.make(64, True), spec, 0, 1, tmp_path / "pairs")
        names.append(spec.name)
    assert names == ["arm.xml", "arm.xml"]
    assert len(list((tmp_path / "pairs").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.xml", "there is no model at missing.xml; name an MJCF file"),
        ("broken.xml", "broken.xml is no model that MuJoCo can load: "),
        ("idle.xml", "idle.xml has nothing that moves it; give it an <actuator>"),
        ("endless.xml", "the actions of MuJoCo's model 'MuJoCo Model' have no bounds"),
        ("arm.xml@nowhere", "has no camera 'nowhere'; its cameras: above, aside; a free view is AZIMUTH"),
        ("arm.xml@1,2,3,4", "has no camera '1,2,3,4'"),
        ("two_room@aside", "two_room has no camera to choose; --camera is for what MuJoCo draws"),
        ("arm.xml@above+above", r"of several cameras each has its name, once, and a \+ between, not 'above\+above'"),
        ("arm.xml@above+", r"of several cameras each has its name, once, and a \+ between, not 'above\+'"),
        ("arm.xml@above+nowhere", "has no camera 'nowhere'; its cameras: above, aside"),
        ("own_robots:blind", "own_robots:blind draws no pictures .its render_mode is None.; make it with"),
        ("own_robots:images", "own_robots:images has discrete actions"),
        ("own_robots:Whole", "own_robots:Whole has discrete actions; planners here search continuous ones"),
        ("own_robots:Parts", "own_robots:Parts has actions in parts, a Dict; make them one Box"),
        ("own_robots:Worded", "the metadata of own_robots:Worded have render_fps '20'; make it steps a second"),
        ("own_robots:Old", r"reset\(\) of own_robots:Old must return an observation and a dict"),
        ("own_robots:square@above", "own_robots:square is not simulated by MuJoCo, so it has no camera to choose"),
        ("own_robots:missing", "has no 'missing'"),
    ],
)
def test_what_is_no_robot_is_refused_in_one_line(name, message):
    from pathlib import Path

    body = '<body><joint/><geom size="1"/></body>'
    Path("broken.xml").write_text("<mujoco><worldbody>")
    Path("idle.xml").write_text(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    named = body.replace("<joint", '<joint name="j"')
    motor = '<actuator><motor joint="j"/></actuator>'
    Path("endless.xml").write_text(f"<mujoco><worldbody>{named}</worldbody>{motor}</mujoco>")
    with pytest.raises(UserError, match=message) as caught:
        envs.get_task(name)
    assert "\n" not in str(caught.value)


def test_a_function_that_makes_an_environment_is_a_task():
    spec, env = envs.get_task("own_robots:square"), envs.make("own_robots:square")
    spec.check(env)
    assert (env.step_seconds, spec.action_repeat, env.restorable) == (0.05, 1, False)
    picture, _ = env.reset(seed=0)
    np.testing.assert_array_equal(picture, square(env._inner.render(), 64, ""))
    before = env.qpos
    assert env.advance(np.array([0.5, -3.0])) == 1.0
    np.testing.assert_allclose(env.qpos - before, [0.05, -0.1])  # clipped to its bounds
    with pytest.raises(Ended, match="own_robots:square has ended the episode"):
        [env.advance(np.array([1.0, 0.0])) for _ in range(30)]


def test_an_observation_in_parts_is_no_state():
    env = envs.make("own_robots:Apart")
    env.reset(seed=0)
    env.advance(np.zeros(2))
    assert env.qpos.shape == (0,)


def test_observations_that_grow_are_named():
    env = envs.make("own_robots:Growing")
    env.reset(seed=0)
    with pytest.raises(EnvError, match="own_robots:Growing observes 3 numbers, and 2 before"):
        env.advance(np.zeros(2))


def test_wrappers_of_its_own_are_kept_and_mujoco_behind_it_is_found():
    swing, hopper = envs.make("own_robots:swing"), envs.make("own_robots:hopper")
    np.testing.assert_array_equal([swing.action_space.low, swing.action_space.high], [[-1], [1]])  # Pendulum's own is 2
    assert swing.reset(seed=0)[0].shape == (64, 64, 3)
    np.testing.assert_array_equal(hopper.reset(seed=1)[0], envs.make("gym/Hopper-v5").reset(seed=1)[0])
    assert envs.get_task("own_robots:hopper@track").name == "own_robots:hopper@track"


def test_states_that_the_environment_keeps_are_saved_and_restored():
    env = envs.make("own_robots:kept")
    env.reset(seed=0)
    state = env.get_state()
    seen = [env.step(np.array([0.3, 0.1]))[0] for _ in range(3)], env.qpos
    env.set_state(state)
    again = [env.step(np.array([0.3, 0.1]))[0] for _ in range(3)], env.qpos
    np.testing.assert_array_equal(seen[0], again[0])
    np.testing.assert_array_equal(seen[1], again[1])


@pytest.mark.parametrize("kind", ["square", "mute"])
def test_without_states_goals_in_simulation_are_refused_and_pictures_serve(kind, run_command, tmp_path):
    data, folder, goal = tmp_path / "data.h5", tmp_path / "model", tmp_path / "goal.png"
    words = ["--task", f"own_robots:{kind}"]
    code, _, err = run_command("collect", *words, "--num-episodes", "6", "--num-processes", "1", "--output", data)
    assert code == 0, err
    assert "cut" not in err  # where it ends by itself nothing has blown up
    code, _, err = run_command("train", *words, "--data", data, "--output", folder, "--preset", "debug")
    assert code == 0, err
    Image.fromarray(envs.make("own_robots:square").reset(seed=5)[0]).save(goal)
    plan = [*words, "--checkpoint", folder, "--no-video"]
    code, _, err = run_command("plan", *plan, "--goal-image", goal, "--output", tmp_path / "run")
    assert code == 0, err
    assert (tmp_path / "run/results.json").exists()
    code, _, err = run_command("plan", *plan, "--num-episodes", "1")
    assert code == 1
    assert err.count("\n") == 1
    assert f"goals in simulation need a get_state of own_robots:{kind}" in err


def test_any_picture_becomes_its_centre_square_averaged_down():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:4], wide[:, 4:6, 1] = 200, 100
    np.testing.assert_array_equal(square(wide, 2, "")[0], [[200] * 3, [0, 100, 0]])
    for picture, message in (
        (np.zeros((4, 4, 4), np.uint8), r"it must be \(H, W, 3\) uint8, not uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), "it must be"),
        (np.zeros((4, 1, 3), np.uint8), "it is 1×4; at least 2×2 pixels are needed"),
    ):
        with pytest.raises(UserError, match=message):
            square(picture, 2, "it")


def test_a_camera_may_be_an_option(run_command):
    code, out, err = run_command("tasks", "arm.xml@aside")
    assert code == 0, err
    assert "arm.xml@aside" in out
    code, _, err = run_command("collect", "--task", "arm.xml", "--camera", "nowhere")
    assert (code, err.count("\n")) == (1, 1)
    assert "has no camera 'nowhere'" in err
    code, _, err = run_command("collect", "--camera", "aside")
    assert (code, err) == (1, "error: --camera is of a robot that --task names; give both\n")


def test_gymnasium_is_an_environment_of_ours_too():
    assert isinstance(envs.make("own_robots:square"), gym.Env)
