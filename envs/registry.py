"""Every task under one name: how to make it, sample data, and decide success. The only table of tasks."""

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.base import EnvError, PixelEnv


@dataclass(frozen=True)
class SuiteTask:
    """A task of the control suite, with its reward, whose aim can be shown as a picture."""

    name: str
    make: Callable[[int, bool], PixelEnv]
    goal_pose: Callable[[PixelEnv], NDArray[np.float64]]  # one that earns the reward of the present episode


@dataclass(frozen=True)
class TaskSpec:
    """What distinguishes one task from another. Lengths are in environment steps."""

    name: str
    make: Callable[[int, bool], PixelEnv]  # from the picture's side in pixels, and fast or default rendering
    camera: int | str
    image_size: int
    action_repeat: int  # control steps that one environment step lasts
    action_block: int  # environment steps, with distinct actions, that one model step lasts
    episode_len: int  # length of a collected episode
    data_policy: str  # a name in agent/policies.py
    goal_offset: int  # the goal lies this far ahead of the start, in the same episode
    budget: int  # steps within which the goal must be reached
    far_budget: int  # the same for goals from other episodes
    unlimited_joints: tuple[bool, ...]  # per coordinate of qpos: turns without limit, so its error wraps at 2π
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, so probes read its cosine and sine
    tolerance: float  # the goal is reached when every coordinate's error is below this
    tolerance_unit: str
    effector: str  # the geom that the strict protocol watches
    effector_tolerance: float  # metres
    suite: tuple[SuiteTask, ...] = ()

    def error(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> float:
        """The largest coordinate error between two poses (Q,), wrapped where the joint is unlimited."""
        difference = np.asarray(qpos) - np.asarray(goal_qpos)
        wrapped = np.abs((difference + np.pi) % (2 * np.pi) - np.pi)
        return float(np.max(np.where(self.unlimited_joints, wrapped, np.abs(difference))))

    def success(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> bool:
        return self.error(qpos, goal_qpos) < self.tolerance


def _make_reacher(difficulty: str, image_size: int, fast_rendering: bool) -> PixelEnv:
    from envs import reacher

    spec = _TASKS["reacher"]
    return reacher.make(difficulty, image_size, fast_rendering, camera=spec.camera, action_repeat=spec.action_repeat)


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
            camera=0,
            image_size=64,
            action_repeat=2,
            action_block=5,
            episode_len=200,
            data_policy="uniform",
            goal_offset=25,
            budget=50,
            far_budget=100,
            unlimited_joints=(True, False),
            angles=(True, True),
            tolerance=0.05,
            tolerance_unit="rad",
            effector="finger",
            effector_tolerance=0.01,
            suite=tuple(
                SuiteTask(f"reacher-{name}", functools.partial(_make_reacher, name), _reacher_pose_on_target)
                for name in ("easy", "hard")
            ),
        ),
    ]
}


def task_names() -> list[str]:
    return sorted(_TASKS)


def get_task(name: str) -> TaskSpec:
    """The task of that name; `EnvError` lists the known ones."""
    if name not in _TASKS:
        raise EnvError(f"unknown task {name!r}; known tasks: {', '.join(task_names())}")
    return _TASKS[name]


def make(name: str, image_size: int | None = None, fast_rendering: bool = True) -> PixelEnv:
    """A new environment of the task, with pictures of its own size unless another is asked for."""
    spec = get_task(name)
    return spec.make(image_size or spec.image_size, fast_rendering)


def simulator_version() -> str:
    """The version that decides what pictures look like, recorded in data sets and checkpoints."""
    return f"mujoco {importlib.metadata.version('mujoco')}"
