"""Bounds of actions as planners and policies need them: finite, in order, and not all of them fixed."""

import numpy as np

from jepa_mpc.envs.blocks import Bounds
from jepa_mpc.errors import UserError

_NO_BOUND = 1e6  # or more is a simulator's way to say that there is none


def require_bounds(bounds: Bounds, whose: str) -> None:
    """Raises `UserError`, which names whose they are, on bounds (A,) that nothing can search or draw in."""
    low, high = np.asarray(bounds.low), np.asarray(bounds.high)
    fix = f"give {whose} bounds of its own, such as -1 to 1"
    if low.ndim != 1 or low.shape != high.shape or not low.size:
        raise UserError(f"bounds of actions must be two vectors (A,), not {low.shape} and {high.shape}; {fix}")
    for action, (least, most) in enumerate(zip(low, high, strict=True)):
        if not (abs(least) < _NO_BOUND and abs(most) < _NO_BOUND):
            raise UserError(f"action {action} of {whose} has no bounds ({least:g} to {most:g}); {fix}")
        if least > most:
            raise UserError(f"action {action} of {whose} has its bounds reversed ({least:g} to {most:g}); {fix}")
    if (low == high).all():
        raise UserError(f"no action of {whose} can vary (all are {low.tolist()}); {fix}")
