"""What a task is: how to make it, sample data in it, and decide success."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.looks import Look
from jepa_mpc.errors import UserError
from jepa_mpc.settings import Count, Natural, Positive, Range, Refused, Valid, convert

if TYPE_CHECKING:
    from jepa_mpc.envs.base import PixelEnv
else:
    PixelEnv = Any  # as far as annotations are held against: to import it takes Gymnasium

Side = Annotated[int, Range(16, 4096)]  # pixels; the encoder halves them four times
_NAME = r"\w[\w.+ -]*([/:]\w[\w.+ -]*)*(@[\w., /+-]+)?"  # it becomes folders and files; behind @ cameras

# Of tasks that go by their suite's name.
SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT = "pink", 0.02, "of each range"


@dataclass(frozen=True)
class SuiteTask(Valid):
    """A task of the control suite, with its reward, whose aim can be shown as a picture."""

    name: str
    make: Callable[[int, bool], PixelEnv]
    goal_pose: Callable[[PixelEnv], NDArray[np.float64]]  # one that earns the reward of the present episode


@dataclass(frozen=True)
class Part(Valid):
    """Coordinates of a pose whose error is one number: a distance, an angle that wraps at 2π, or that of a rotation."""

    coordinates: tuple[Natural, ...]
    scale: Positive = 1.0  # divides the error
    kind: Literal["distance", "angle", "rotation"] = "distance"  # a rotation's four are a unit quaternion

    def rules(self):
        fits = len(self.coordinates) == 4 if self.kind == "rotation" else self.coordinates
        yield "coordinates", fits, f"must be at least one, and four of a rotation, not {self.coordinates}"

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
class PoseTest(Valid):
    """When two poses (Q,) count as the same: every part of them is within the tolerance; other coordinates are free."""

    parts: tuple[Part, ...]
    tolerance: Positive
    unit: str  # of an error

    def rules(self):
        yield "parts", self.parts, "must be at least one Part, not ()"

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
class Untold(PoseTest):
    """Of a simulator whose state does not tell when two poses are the same. Raises `UserError` where that is asked."""

    parts: tuple[Part, ...] = ()
    tolerance: Positive = 1.0
    unit: str = "untold"

    def rules(self):
        yield from ()

    def errors(self, qpos, goal_qpos):
        raise UserError(
            "this simulator does not tell when a goal is reached: plan to pictures with --goal-image, or register a "
            "TaskSpec with a pose"
        )


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
class TaskSpec(Valid):
    """What distinguishes one task from another. Lengths are in environment steps."""

    name: str
    make: Callable[[int, bool], PixelEnv]  # from the picture's side in pixels, and fast or default rendering
    pose: PoseTest
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, so probes read its cosine and sine
    action_repeat: Count  # control steps that one environment step lasts
    data_policy: str  # a name in agent/data_policies, or `module:function`
    randomise: tuple[Look, ...] = ()  # what of the scene's looks collection draws at random, unless told otherwise
    image_size: Side = 64
    action_block: Count = 5  # environment steps, with distinct actions, that one model step lasts
    episode_len: Count = 200  # length of a collected episode
    goal_offset: Count = 25  # the goal lies this far ahead of the start, in the same episode
    budget: Count = 50  # steps within which the goal must be reached
    far_budget: Count = 100  # the same for goals from other episodes
    effector: str | None = None  # the geom that the strict protocol watches
    effector_tolerance: Positive = 0.01  # metres
    strict_pose: PoseTest | None = None  # what it asks where there is no such geom; half the tolerance unless given
    strict_steps: Count = 2  # consecutive ones that it asks for
    suite: tuple[SuiteTask, ...] = ()
    model: str = ""  # what tells the simulation from another of the same name, where it is a file that may change
    planning: Mapping[str, Any] = field(default_factory=dict)  # what differs from `AgentConfig`'s defaults, as in JSON
    rows: tuple[TableRow, ...] = (TableRow(), TableRow("far"))

    def rules(self):
        least, Q = 2 * self.action_block, len(self.angles)
        named = re.fullmatch(_NAME, self.name)
        yield "name", named, f"must be letters, digits and any of -_+. between / or :, not {self.name!r}"
        enough = self.episode_len >= least
        yield "episode_len", enough, f"must be at least two blocks ({least} steps), not {self.episode_len}"
        for name, test in (("pose", self.pose), ("strict_pose", self.strict_pose or self.pose)):
            last = max((coordinate for part in test.parts for coordinate in part.coordinates), default=-1)
            yield name, last < Q, f"must test coordinates of qpos, of which `angles` has {Q}, not number {last}"

    @property
    def strict(self) -> PoseTest:
        """Returns what the strict protocol asks of the pose of a task without effector."""
        return self.strict_pose or replace(self.pose, tolerance=0.5 * self.pose.tolerance)

    def check(self, env: PixelEnv) -> None:
        """Resets an environment and does nothing for a block.

        Raises `UserError`, which says what was expected and what was found, if it is not such as the task describes.
        """
        from jepa_mpc.envs import base

        with self.naming(), contextlib.suppress(base.Diverged):  # how often that is, whoever runs it says
            convert(base.PixelEnv, env, ("what make returns",))
            low, high = (np.asarray(getattr(env.action_space, name, ())) for name in ("low", "high"))
            if low.ndim != 1 or not low.size or low.shape != high.shape:
                found = f"{type(env.action_space).__name__} of {env.action_space.shape}"
                raise Refused(("action_space",), f"must be a Box of vectors (A,), not {found}")
            convert(Positive, env.step_seconds, ("step_seconds",))
            env.reset(seed=0)
            self._look(env)
            for _ in range(self.action_block):
                env.advance(np.clip(np.zeros(low.shape, np.float32), low, high))
            self._look(env)

    def _look(self, env: PixelEnv) -> None:
        """Raises `Refused` on a picture or numbers that nothing can be learned from."""
        numbers, Q = "finite floats", len(self.angles)
        height, width = self.image_size, self.image_size * len(env.cameras)
        state = env.get_state() if env.restorable else np.empty(0)
        for name, values, kind, shape, expected in (
            ("render()", env.render(), np.uint8, (height, width, 3), "uint8, of image_size for each camera,"),
            ("proprio", env.proprio, np.float32, (len(env.proprio_names),), f"{numbers}, one a name,"),
            ("qpos", env.qpos, np.floating, (Q,), f"{numbers}, as many as angles,"),
            ("qvel", env.qvel, np.floating, (np.size(env.qvel),), numbers),
            ("get_state()", state, np.floating, (np.size(state),), numbers),
        ):
            found = np.asarray(values)
            if not np.issubdtype(found.dtype, kind) or found.shape != shape:
                raise Refused((name,), f"must be {expected} {shape}, not {found.dtype} {found.shape}")
            if not np.isfinite(found).all():
                raise Refused((name,), f"must be {expected} {shape}, not {found[~np.isfinite(found)][0]}")
