"""What a task is: how to make it, sample data in it, and decide success."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jepa_mpc.envs.base import PixelEnv

# Of tasks that go by their suite's name.
SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT = "pink", 0.02, "of each range"


@dataclass(frozen=True)
class SuiteTask:
    """A task of the control suite, with its reward, whose aim can be shown as a picture."""

    name: str
    make: Callable[[int, bool], PixelEnv]
    goal_pose: Callable[[PixelEnv], NDArray[np.float64]]  # one that earns the reward of the present episode


@dataclass(frozen=True)
class Part:
    """Coordinates of a pose whose error is one number: a distance, an angle that wraps at 2π, or that of a rotation."""

    coordinates: tuple[int, ...]
    scale: float = 1.0  # divides the error
    kind: Literal["distance", "angle", "rotation"] = "distance"  # a rotation's four are a unit quaternion

    def error(self, qpos: NDArray[np.float64], goal_qpos: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the error (...) of poses (..., Q)."""
        coordinates = list(self.coordinates)
        here, there = qpos[..., coordinates], goal_qpos[..., coordinates]
        if self.kind == "rotation":  # q and −q are one rotation
            return 2 * np.arccos(np.minimum(1.0, np.abs((here * there).sum(-1)))) / self.scale
        difference = here - there
        if self.kind == "angle":
            difference = (difference + np.pi) % (2 * np.pi) - np.pi
        return np.sqrt(np.square(difference).sum(-1)) / self.scale


@dataclass(frozen=True)
class PoseTest:
    """When two poses (Q,) count as the same: every part of them is within the tolerance; other coordinates are free."""

    parts: tuple[Part, ...]
    tolerance: float
    unit: str  # of an error

    def errors(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the largest error of a part (...), of poses (..., Q)."""
        here, there = np.asarray(qpos), np.asarray(goal_qpos)
        return functools.reduce(np.maximum, (part.error(here, there) for part in self.parts))

    def error(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> float:
        """Returns the largest error of a part, of one pose (Q,)."""
        return float(self.errors(qpos, goal_qpos))

    def success(self, qpos: NDArray[np.floating], goal_qpos: NDArray[np.floating]) -> bool:
        """Says whether one pose (Q,) counts as the other."""
        return self.error(qpos, goal_qpos) < self.tolerance


@dataclass(frozen=True)
class TableRow:
    """A row of the table of bundled checkpoints: a protocol of `eval/protocols.py`, at the task's own lengths unless
    others are given, and the best success rate published for it, in %, with its source.
    """

    protocol: str = "standard"
    goal_offset: int | None = None
    budget: int | None = None
    published: str = "–"


@dataclass(frozen=True)
class TaskSpec:
    """What distinguishes one task from another. Lengths are in environment steps."""

    name: str
    make: Callable[[int, bool], PixelEnv]  # from the picture's side in pixels, and fast or default rendering
    pose: PoseTest
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, so probes read its cosine and sine
    action_repeat: int  # control steps that one environment step lasts
    data_policy: str  # a name in agent/data_policies, or `module:function`
    image_size: int = 64
    action_block: int = 5  # environment steps, with distinct actions, that one model step lasts
    episode_len: int = 200  # length of a collected episode
    goal_offset: int = 25  # the goal lies this far ahead of the start, in the same episode
    budget: int = 50  # steps within which the goal must be reached
    far_budget: int = 100  # the same for goals from other episodes
    effector: str | None = None  # the geom that the strict protocol watches
    effector_tolerance: float = 0.01  # metres
    strict_pose: PoseTest | None = None  # what it asks where there is no such geom; half the tolerance unless given
    strict_steps: int = 2  # consecutive ones that it asks for
    suite: tuple[SuiteTask, ...] = ()
    planning: Mapping[str, Any] = field(default_factory=dict)  # what differs from `AgentConfig`'s defaults, as in JSON
    rows: tuple[TableRow, ...] = (TableRow(), TableRow("far"))

    @property
    def strict(self) -> PoseTest:
        """Returns what the strict protocol asks of the pose of a task without effector."""
        return self.strict_pose or replace(self.pose, tolerance=0.5 * self.pose.tolerance)
