"""What agents that plan from pictures are given, held against what it must be and when, and what they say where they
cannot answer. It needs NumPy alone, for there are agents that have no more.
"""

import operator
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.errors import UserError, reason

NOT_SEEN = "an agent is surprised by pictures: call act(pictures) before asking for surprise"


def checked_pictures(pictures: ArrayLike, what: str, side: int, num_dimensions: int | None = None) -> NDArray[np.uint8]:
    """Returns pictures (..., H, W, 3) as they must be; raises `UserError` on any others."""
    try:
        array = np.asarray(pictures)
    except (TypeError, ValueError) as error:  # of several shapes, or on another device
        raise UserError(f"{what} must be an array (B, {side}, {side}, 3): {reason(error)}") from error
    if array.dtype != np.uint8:
        raise UserError(f"{what} must be uint8, 0 to 255, not {array.dtype}; convert them, from 0…1 by × 255")
    if array.shape[-3:] != (side, side, 3) or num_dimensions not in (None, array.ndim):
        raise UserError(f"{what} must be (B, {side}, {side}, 3), not {array.shape}")
    return array


def checked_goals(goals: ArrayLike, seeds: Sequence[int], side: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Returns goals (B, H, W, 3) and as many seeds as episodes begin with; raises `UserError` on any others."""
    array = checked_pictures(goals, "goals", side, 4)
    try:
        whole = [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise UserError(f"seeds must be whole numbers, one a goal, not {seeds!r}") from error
    if not len(array) == len(whole) > 0:
        raise UserError(f"{len(array)} goals need a seed each, not {len(whole)} seeds, and at least one is needed")
    if not all(-(2**63) <= seed < 2**64 for seed in whole):
        raise UserError(f"seeds must be numbers of 64 bits, not {seeds!r}")
    return array, whole


def checked_now(pictures: ArrayLike, num_episodes: int, side: int) -> NDArray[np.uint8]:
    """Returns the pictures (B, H, W, 3) to act on in so many episodes; raises `UserError` on any others."""
    if not num_episodes:
        raise UserError("an agent acts toward goals: call reset(goals, seeds) before act(pictures)")
    array = checked_pictures(pictures, "pictures", side, 4)
    if len(array) != num_episodes:
        raise UserError(f"{num_episodes} goals were given and {len(array)} pictures; give one for each")
    return array


def warn_of_lost(lost: NDArray[np.bool_]) -> None:
    """Warns whoever called `act` of episodes (B,) in which no plan has a cost that is a number, if there are any."""
    if lost.any():
        warnings.warn(
            f"the model gives no finite cost in {int(lost.sum())} of {len(lost)} episodes; the middle of the bounds is "
            "sent instead",
            stacklevel=3,
        )
