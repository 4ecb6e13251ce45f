"""A task is held against what it says where it is made, and its environment against the task before any work."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from line import LINE, Line, register

from jepa_mpc import envs
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.envs import Part, PoseTest
from jepa_mpc.errors import UserError
from jepa_mpc.eval.trial import Trial


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_block": 0}, "TaskSpec line: action_block must be at least 1, not 0"),
        ({"action_block": 500}, r"episode_len must be at least two blocks \(1000 steps\), not 10"),
        ({"episode_len": 3}, r"episode_len must be at least two blocks \(4 steps\), not 3"),
        ({"image_size": 8}, "image_size must be 16 to 4096, not 8"),
        ({"image_size": 10**6}, "image_size must be 16 to 4096, not 1000000"),
        ({"angles": ()}, "pose must test coordinates of qpos, of which `angles` has 0, not number 0"),
        ({"pose": PoseTest((Part((5,)),), 1.0, "m")}, "pose must test .* `angles` has 1, not number 5"),
        ({"strict_pose": PoseTest((Part((1,)),), 1.0, "m")}, "strict_pose must test .* `angles` has 1, not number 1"),
        ({"angles": (0.5,)}, "angles must be bool, not 0.5"),
        ({"effector_tolerance": 0}, "effector_tolerance must be above 0, not 0"),
        ({"name": "../../x"}, r"name must be .*, not '../../x'"),
        ({"name": ""}, "name must be .*, not ''"),
        ({"name": "a/../b"}, "name must be"),
        ({"make": 7}, "make must be a function of 2 arguments: 7 is not a callable object"),
        ({"make": lambda image_size: None}, "make must be a function of 2 arguments: too many positional"),
        ({"planning": [3]}, r"planning must be .*, not \[3\]"),
    ],
)
def test_a_task_that_cannot_be_is_refused_where_it_is_made(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        replace(LINE, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoseTest((), 0.1, "m"), "PoseTest: parts must be at least one"),
        (lambda: PoseTest((Part((0,)),), 0, "m"), "PoseTest: tolerance must be above 0, not 0"),
        (lambda: PoseTest((Part((0,)),), -1.0, "m"), "PoseTest: tolerance must be above 0, not -1"),
        (lambda: Part(()), r"Part: coordinates must be at least one, .* not \(\)"),
        (lambda: Part((0, 1, 2), kind="rotation"), "four of a rotation, not .0, 1, 2"),
        (lambda: Part((-1,)), "coordinates must be at least 0, not -1"),
        (lambda: Part((0,), 0.0), "scale must be above 0, not 0"),
        (lambda: Part((0,), kind="round"), "kind must be distance or angle or rotation, not 'round'"),
    ],
)
def test_a_pose_test_that_tests_nothing_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_numbers_of_numpy_and_lists_are_taken_as_pythons():
    part = Part(list(np.arange(2)), np.float32(0.5))
    assert (part.coordinates, part.scale, type(part.coordinates[0])) == ((0, 1), 0.5, int)
    assert replace(LINE, angles=tuple(np.array([True]))).angles == (True,)


class Wrong(Line):
    """A line of which something is replaced once it has moved, or from the start."""

    def __init__(self, image_size, fast_rendering, name="", value=None, after=0):
        super().__init__(image_size)
        self._name, self._value, self._after, self._moves = name, value, after, 0

    def advance(self, action):
        self._moves += 1
        return super().advance(action)

    def reset(self, *, seed=None, options=None):
        self._moves = 0
        return super().reset(seed=seed)

    def __getattribute__(self, name):
        own = super().__getattribute__
        if name[0] == "_" or name != own("_name") or own("_moves") < own("_after"):
            return own(name)
        value = own("_value")
        return (lambda: value) if callable(own(name)) else value


WRONG = [
    (
        "render",
        np.zeros((16, 16, 3), np.float32),
        r"render\(\) must be uint8, of image_size for each camera, \(16, 16, 3\), not float32",
    ),
    ("render", np.zeros((16, 16), np.uint8), r"render\(\) must be .* not uint8 \(16, 16\)"),
    ("render", np.zeros((64, 64, 3), np.uint8), r"render\(\) must be .* not uint8 \(64, 64, 3\)"),
    ("qpos", np.zeros(3), r"qpos must be finite floats, as many as angles, \(1,\), not float64 \(3,\)"),
    ("qpos", np.array([1]), r"qpos must be finite floats, .*, not int64 \(1,\)"),
    ("qvel", None, r"qvel must be finite floats \(1,\), not object"),
    ("get_state", np.array([np.inf]), r"get_state\(\) must be finite floats \(1,\), not inf"),
    ("step_seconds", None, "step_seconds must be float, not None"),
    ("action_space", gym.spaces.Discrete(3), r"action_space must be a Box of vectors \(A,\), not Discrete of \(\)"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_an_environment_that_is_not_as_its_task_says_is_refused(name, value, message):
    with pytest.raises(UserError, match=f"^TaskSpec line: {message}") as caught:
        LINE.check(Wrong(16, True, name, value))
    assert "\n" not in str(caught.value)


def make_nan_after_a_step(image_size, fast_rendering):
    return Wrong(image_size, fast_rendering, "qpos", np.array([np.nan]), 1)


def make_nothing(image_size, fast_rendering):
    return None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nan_after_a_step, r"TaskSpec line: qpos must be finite floats, .*, not nan"),
        (make_nothing, "TaskSpec line: what make returns must be PixelEnv, not None"),
    ],
)
def test_collection_the_task_listing_and_planning_refuse_it_before_any_work(
    tmp_path, monkeypatch, run_command, make, message
):
    spec = register(monkeypatch, replace(LINE, make=make))
    with pytest.raises(UserError, match=message):
        collect(CollectConfig("line", num_episodes=2, output=tmp_path / "d.h5", num_processes=1))
    with pytest.raises(UserError, match=message):
        Trial.on_pairs(envs.make("line"), spec, "standard", 0, 2)
    code, out, err = run_command("tasks", "line")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("planning", "message"),
    [
        ({"horizn": 3}, "the planning of task line: horizn is unknown"),
        ({"planner": {"name": "cem", "num_samples": 64, "num_elites": 1000}}, "num-elites must lie in 1–64"),
    ],
)
def test_settings_that_it_could_never_be_planned_with_are_refused_before_collection(
    tmp_path, monkeypatch, planning, message
):
    register(monkeypatch, replace(LINE, planning=planning))
    with pytest.raises(UserError, match=message):
        collect(CollectConfig("line", num_episodes=2, output=tmp_path / "d.h5", num_processes=1))


@pytest.mark.parametrize("size", [0, -3, 10**6])
def test_pictures_of_no_size_are_refused(size):
    with pytest.raises(UserError, match=f"TaskSpec two_room: image_size must be 16 to 4096, not {size}"):
        envs.make("two_room", image_size=size)
