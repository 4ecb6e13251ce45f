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

GoalProtocol = Literal["standard", "far", "hold", "strict"]
ProtocolName = GoalProtocol | Literal["suite"]
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

    def rule(self, spec: TaskSpec, budget: int) -> "Rule":
        """Returns the protocol as it is asked of a task."""
        goal = "in another episode" if self.far else f"{spec.goal_offset} steps ahead"
        pose, steps = (spec.strict, spec.strict_steps) if self.strict else (spec.pose, self.steps)
        tolerance, what = pose.tolerance, f"within {pose.tolerance:g} {pose.unit}"
        if self.strict and spec.effector is not None:
            tolerance, what = spec.effector_tolerance, f"{spec.effector} within {spec.effector_tolerance} m"
        kept = f" for {steps} steps" if steps > 1 else ""
        offset = None if self.far else spec.goal_offset
        return Rule(self.name, self.far, self.strict, steps, f"goal {goal}, {what}{kept}", offset, budget, tolerance)


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
    tolerance: float  # the largest error that counts, in the unit of the pose, or of the effector's place


PROTOCOLS = {
    "standard": Protocol("standard", far=False),
    "far": Protocol("far", far=True),
    "hold": Protocol("hold", far=False, steps=HOLD_STEPS),
    "strict": Protocol("strict", far=True, strict=True),
}


def first_kept(within: NDArray[np.bool_], steps: int) -> int | None:
    """Returns the step, from 1 on, that completes the first `steps` consecutive ones within (T,); None if none does."""
    run = 0
    for step, inside in enumerate(within, start=1):
        run = run + 1 if inside else 0
        if run == steps:
            return step
    return None
