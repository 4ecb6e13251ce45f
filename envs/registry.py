"""Every task under one name. Tasks with settings of their own stand in the one table here; any other MuJoCo task of
the control suite or of Gymnasium goes by `dmc/<domain>-<task>` or `gym/<Id>` (`envs/generic.py`).
"""

import difflib
import functools
import importlib.metadata

import numpy as np
from numpy.typing import NDArray

from envs.base import EnvError, PixelEnv
from envs.task import Part, PoseTest, SuiteTask, TaskSpec


def _make_reacher(difficulty: str, image_size: int, fast_rendering: bool) -> PixelEnv:
    from envs import reacher

    return reacher.make(difficulty, image_size, fast_rendering, action_repeat=_TASKS["reacher"].action_repeat)


def _make_two_room(image_size: int, fast_rendering: bool) -> PixelEnv:
    from envs.two_room import TwoRoomEnv

    return TwoRoomEnv(image_size)


def _reacher_pose_on_target(env: PixelEnv) -> NDArray[np.float64]:
    from envs import reacher

    return reacher.pose_on_target(env)


# The Reacher protocol of LeWorldModel (arXiv 2603.19312) as its auditors state it: 0.05 rad in every joint.
_TASKS = {
    spec.name: spec
    for spec in [
        TaskSpec(
            name="reacher",
            make=functools.partial(_make_reacher, "easy"),
            pose=PoseTest((Part((0,), kind="angle"), Part((1,))), tolerance=0.05, unit="rad"),
            angles=(True, True),
            action_repeat=2,
            data_policy="uniform",
            effector="finger",
            effector_tolerance=0.01,
            suite=tuple(
                SuiteTask(f"reacher-{name}", functools.partial(_make_reacher, name), _reacher_pose_on_target)
                for name in ("easy", "hard")
            ),
        ),
        # Two-Room of the same paper: within 16 of 224 pixels.
        TaskSpec(
            name="two_room",
            make=_make_two_room,
            pose=PoseTest((Part((0, 1)),), tolerance=16.0, unit="of 224 pixels"),
            angles=(False, False),
            action_repeat=1,
            data_policy="two_room_walker",
        ),
    ]
}


def task_names() -> list[str]:
    """The tasks that have settings of their own."""
    return sorted(_TASKS)


def get_task(name: str) -> TaskSpec:
    """The task of that name. Raises `EnvError`, which suggests the nearest names, if there is none."""
    if name in _TASKS:
        return _TASKS[name]
    from envs import generic

    if generic.exists(name):
        return generic.spec(name)
    known = [*task_names(), *generic.names()]
    near = difflib.get_close_matches(name, known, n=3) or [known_name for known_name in known if name in known_name][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`python envs/list_tasks.py` lists them"
    raise EnvError(f"unknown task {name!r}; {hint}")


def make(name: str, image_size: int | None = None, fast_rendering: bool = True) -> PixelEnv:
    """A new environment of the task, with pictures of its own size unless another is asked for."""
    spec = get_task(name)
    return spec.make(image_size or spec.image_size, fast_rendering)


def simulator_version() -> str:
    """The version that decides what pictures look like, recorded in data sets and checkpoints."""
    return f"mujoco {importlib.metadata.version('mujoco')}"
