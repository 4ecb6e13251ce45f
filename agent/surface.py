"""What agents that plan from pictures are given, held against what it must be and when, and what they say where they
cannot answer. It needs NumPy alone, for there are agents that have no more.
"""

import operator
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.errors import UserError, reason
from jepa_mpc.pictures import require_pictures

NOT_SEEN = "an agent is surprised by pictures: call act(pictures) before asking for surprise"


_MOST = 1e15  # of a number that is felt, as of those in data sets
Size = tuple[int, int]  # height and width of a picture


def checked_pictures(pictures: ArrayLike, what: str, size: Size, *num_dimensions: int) -> NDArray[np.uint8]:
    """Returns pictures (..., H, W, 3) as they must be; raises `UserError` on any others."""
    array = require_pictures(pictures, what, size)
    if num_dimensions and array.ndim not in num_dimensions:
        raise UserError(f"{what} must be (B, {size[0]}, {size[1]}, 3), not {array.shape}")
    return array


def checked_proprio(
    proprio: ArrayLike | None, pictures: NDArray[np.uint8] | None, num: int
) -> NDArray[np.float32] | None:
    """Returns what so many robots feel of themselves (B, P), of which a model knows P numbers; None where it is not
    given, or no pictures have come. Raises `UserError` on anything else.
    """
    if proprio is None:
        return None
    if pictures is None:
        raise UserError("what is felt goes with pictures; leave proprio out of act(None)")
    if not num:
        raise UserError("this model knows pictures alone; leave proprio out, or train with --proprio")
    try:
        array = np.asarray(proprio)
    except (TypeError, ValueError) as error:  # of several lengths, or on another device
        raise UserError(f"proprio must be numbers ({len(pictures)}, {num}): {reason(error)}") from error
    if array.dtype.kind not in "fiu" or array.shape != (len(pictures), num):
        raise UserError(f"proprio must be numbers ({len(pictures)}, {num}), not {array.dtype} {array.shape}")
    if (np.abs(array) >= _MOST).any():
        raise UserError(f"proprio must be below {_MOST:g}, or NaN where it is not known")
    return array.astype(np.float32)


def checked_goals(goals: ArrayLike, seeds: Sequence[int], size: Size) -> tuple[NDArray[np.uint8], list[int]]:
    """Returns goals (B, G, H, W, 3), of which one an episode may lack the second dimension, and a seed for each
    episode; raises `UserError` on any others.
    """
    array = checked_pictures(goals, "goals", size, 4, 5)
    if array.ndim == 4:
        array = array[:, None]
    if not array.shape[1]:
        raise UserError(f"goals must be at least one picture an episode, not {array.shape}")
    return array, checked_seeds(seeds, len(array))


def checked_seeds(seeds: Sequence[int], num_goals: int | None = None) -> list[int]:
    """Returns seeds, one for each of so many goals, or as many as they are; raises `UserError` on any others."""
    try:
        whole = [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise UserError(f"seeds must be whole numbers, one a goal, not {seeds!r}") from error
    count = len(whole) if num_goals is None else num_goals
    if not count == len(whole) > 0:
        raise UserError(f"{count} goals need a seed each, not {len(whole)} seeds, and at least one is needed")
    if not all(-(2**63) <= seed < 2**64 for seed in whole):
        raise UserError(f"seeds must be numbers of 64 bits, not {seeds!r}")
    return whole


def checked_now(pictures: ArrayLike | None, num_episodes: int, has_seen: bool, size: Size) -> NDArray[np.uint8] | None:
    """Returns the pictures (B, H, W, 3) to act on in so many episodes, or None where some have been seen before; raises
    `UserError` on any others.
    """
    if not num_episodes:
        raise UserError("an agent acts toward goals: call reset(goals, seeds) before act(pictures)")
    if pictures is None:
        if not has_seen:
            raise UserError("an agent needs a picture to begin with: act(None) may follow, but not come first")
        return None
    array = checked_pictures(pictures, "pictures", size, 4)
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
