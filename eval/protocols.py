"""What counts as reaching a goal: where goals lie, how long there is, and what must be held for how long.

standard  the goal is the picture `goal_offset` steps ahead in the same episode; touched once (LeWorldModel's)
far       the goal is a pose of another episode, at rest; touched once
hold      standard pairs, the pose kept for five steps
strict    far pairs, the effector, or the pose, within a narrower tolerance for some steps (after CLEAR-LeWM)
suite     the control suite's own reward over its own episode, the goal a picture of a pose that earns it
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs import TaskSpec

ProtocolName = Literal["standard", "far", "hold", "strict", "suite"]
HOLD_STEPS = 5
SUITE_CONTROL_STEPS = 1000


@dataclass(frozen=True)
class Protocol:
    """A rule of success and the pairs that it is asked on."""

    name: str
    far: bool  # goals from other episodes
    strict: bool = False  # by the task's own strict rule
    steps: int = 1  # consecutive ones within tolerance, where the rule is not the strict one

    def budget(self, spec: TaskSpec) -> int:
        """Returns the environment steps within which the goal must be reached."""
        return spec.far_budget if self.far else spec.budget

    def tolerance(self, spec: TaskSpec) -> float:
        """Returns the largest error that counts, in the unit of the pose, or of the effector's place."""
        if self.strict:
            return spec.strict.tolerance if spec.effector is None else spec.effector_tolerance
        return spec.pose.tolerance

    def steps_kept(self, spec: TaskSpec) -> int:
        """Counts the consecutive steps within tolerance that it takes."""
        return spec.strict_steps if self.strict else self.steps

    def rule(self, spec: TaskSpec, budget: int) -> "Rule":
        """Returns the protocol as it is asked of a task."""
        offset = None if self.far else spec.goal_offset
        asked = {**vars(self), "steps": self.steps_kept(spec)}
        return Rule(
            **asked, rule=self.describe(spec), goal_offset=offset, budget=budget, tolerance=self.tolerance(spec)
        )

    def describe(self, spec: TaskSpec) -> str:
        """Says where the goal lies and what counts."""
        goal = "in another episode" if self.far else f"{spec.goal_offset} steps ahead"
        what = f"within {self.tolerance(spec):g} {(spec.strict if self.strict else spec.pose).unit}"
        if self.strict and spec.effector is not None:
            what = f"{spec.effector} within {spec.effector_tolerance} m"
        kept = self.steps_kept(spec)
        return f"goal {goal}, {what}" + (f" for {kept} steps" if kept > 1 else "")


@dataclass(frozen=True)
class Rule:
    """A protocol as it was asked of a task; lengths in environment steps."""

    name: str
    far: bool
    strict: bool
    steps: int  # consecutive ones within tolerance
    rule: str  # all of it in words
    goal_offset: int | None
    budget: int
    tolerance: float


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("standard", far=False),
        Protocol("far", far=True),
        Protocol("hold", far=False, steps=HOLD_STEPS),
        Protocol("strict", far=True, strict=True),
    )
}


def first_kept(within: NDArray[np.bool_], steps: int) -> int | None:
    """Returns the step, from 1 on, that completes the first `steps` consecutive ones within (T,); None if none does."""
    run = 0
    for step, inside in enumerate(within, start=1):
        run = run + 1 if inside else 0
        if run == steps:
            return step
    return None
