"""What a task is: how to make it, sample data in it, and decide success."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.base import PixelEnv


@dataclass(frozen=True)
class SuiteTask:
    """A task of the control suite, with its reward, whose aim can be shown as a picture."""

    name: str
    make: Callable[[int, bool], PixelEnv]
    goal_pose: Callable[[PixelEnv], NDArray[np.float64]]  # one that earns the reward of the present episode


@dataclass(frozen=True)
class PoseTest:
    """When two poses (Q,) count as the same: every coordinate's error, divided by its scale, below the tolerance."""

    scale: tuple[float, ...]  # infinite where a coordinate does not count
    wraps: tuple[bool, ...]  # the joint turns without limit, so its error wraps at 2π
    tolerance: float
    unit: str  # of a scaled error
    quaternions: tuple[int, ...] = ()  # coordinates at which four of a unit quaternion begin; their error is an angle

    def error(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> float:
        """The largest scaled error of a coordinate."""
        qpos, goal_qpos = np.asarray(qpos, np.float64), np.asarray(goal_qpos, np.float64)
        difference = np.abs(qpos - goal_qpos)
        wrapped = np.abs((difference + np.pi) % (2 * np.pi) - np.pi)
        errors = np.where(self.wraps, wrapped, difference)
        for first in self.quaternions:
            four = slice(first, first + 4)
            cosine = abs(np.dot(qpos[four], goal_qpos[four]))  # q and −q are one rotation
            errors[four] = 2 * np.arccos(min(1.0, cosine))
        return float(np.max(errors / self.scale))

    def success(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> bool:
        return self.error(qpos, goal_qpos) < self.tolerance


@dataclass(frozen=True)
class TaskSpec:
    """What distinguishes one task from another. Lengths are in environment steps."""

    name: str
    make: Callable[[int, bool], PixelEnv]  # from the picture's side in pixels, and fast or default rendering
    pose: PoseTest
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, so probes read its cosine and sine
    action_repeat: int  # control steps that one environment step lasts
    data_policy: str  # a name in agent/policies.py
    image_size: int = 64
    action_block: int = 5  # environment steps, with distinct actions, that one model step lasts
    episode_len: int = 200  # length of a collected episode
    goal_offset: int = 25  # the goal lies this far ahead of the start, in the same episode
    budget: int = 50  # steps within which the goal must be reached
    far_budget: int = 100  # the same for goals from other episodes
    effector: str | None = None  # the geom that the strict protocol watches; the whole pose unless given
    effector_tolerance: float = 0.5  # metres; without an effector, a share of the pose's tolerance
    suite: tuple[SuiteTask, ...] = ()
