"""Bounds of actions as planners and policies need them: finite, in order, and not all of them fixed."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.blocks import Bounds
from jepa_mpc.errors import UserError

_NO_BOUND = 1e6  # or more is a simulator's way to say that there is none


def checked_bounds(bounds: Bounds, whose: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the least and the largest action (A,), rounded inward.

    Raises `UserError`, which names whose they are, on bounds that nothing can search or draw in.
    """
    low, high = (np.asarray(getattr(bounds, end, None)) for end in ("low", "high"))
    fix = f"give {whose} bounds of its own, such as -1 to 1"
    if low.ndim != 1 or low.shape != high.shape or not low.size or not {low.dtype.kind, high.dtype.kind} <= set("iuf"):
        raise UserError(f"bounds must be two vectors (A,), low and high, as a Box's, not those of {bounds!r}; {fix}")
    for action, (least, most) in enumerate(zip(low, high, strict=True)):
        if not (abs(least) < _NO_BOUND and abs(most) < _NO_BOUND):
            raise UserError(f"action {action} of {whose} has no bounds ({least:g} to {most:g}); {fix}")
        if least > most:
            raise UserError(f"action {action} of {whose} has its bounds reversed ({least:g} to {most:g}); {fix}")
    if (low == high).all():
        raise UserError(f"no action of {whose} can vary (all are {low.tolist()}); {fix}")
    least, most = low.astype(np.float32), high.astype(np.float32)
    least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
    most = np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
    return np.minimum(least, most), most
