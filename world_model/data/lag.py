"""Whether actions stand beside the pictures that they led to, or so many rows earlier or later.

What is seen in a row, a shrunk picture or the recorded state, is o_t, and its change o_{t+1} − o_t. A ridge regression
foretells the change from o_t, the two changes before, and the action k rows earlier, alone and times o_t, for what an
action does depends on the pose. The k that gains most over no action, on episodes that the regression has not seen, is
where the actions act. As the past changes go along, an action that is like its neighbours does not smear the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 5  # rows that are tried either way
_POSE, _CHANGE, _ACTION = 6, 12, 12  # principal components
_FOLDS, _HISTORY, _CLIP = 5, 2, 4.0  # clip: standard deviations, beyond which a feature says no more
_LEAST = 0.005  # of the variance, that is worth speaking of


class Lag(NamedTuple):
    """By how many rows actions act later than they stand; gains are shares of the change's variance."""

    shifts: tuple[int, ...]
    gains: tuple[float, ...]  # of each shift, over no action
    shift: int  # the best, where it can be told from 0; else 0
    is_seen: bool  # the best gains more than the others do by chance
    num_rows: int  # that it was found from


def find_lag(seen: Sequence[NDArray[np.floating]], actions: Sequence[NDArray[np.floating]]) -> Lag | None:
    """Finds where actions act, from what is seen (T, F) and done (T, A) in each episode, NaN after its last picture.

    Returns None where there are too few rows to say.
    """
    most = min(MOST, max((len(each) for each in seen), default=0) // 6)
    shifts = tuple(range(-most, most + 1))
    rows = [np.arange(max(most, _HISTORY), len(each) - 1 - most) for each in seen]
    if sum(map(len, rows)) < 100 or not most:
        return None
    pose = _components(seen, [np.concatenate(seen)], _POSE)
    change = _components(
        [np.diff(each, axis=0) for each in seen], [np.concatenate([np.diff(s, axis=0) for s in seen])], _CHANGE
    )
    finite = np.concatenate([each[np.isfinite(each).all(1)] for each in actions])
    done = _components([np.nan_to_num(each) for each in actions], [finite], _ACTION)

    def at(parts: Sequence[NDArray], shift: int) -> NDArray:
        return np.concatenate([part[index + shift] for part, index in zip(parts, rows, strict=True)])

    here, target = at(pose, 0), at(change, 0)
    folds = np.arange(len(target)) * _FOLDS // len(target)
    base = [here, *(at(change, -back) for back in range(1, _HISTORY + 1))]
    acted = {}
    for shift in shifts:
        action = at(done, -shift)
        acted[shift] = [action, (action[:, :, None] * here[:, None, :]).reshape(len(here), -1)]

    def score(*chosen: int) -> NDArray:
        return _foretold([*base, *(part for shift in chosen for part in acted[shift])], target, folds)

    gains = {shift: (score(shift) - score()).mean() for shift in shifts}
    best = max(shifts, key=gains.__getitem__)
    others = np.array([gain for shift, gain in gains.items() if abs(shift - best) > 1])
    chance = np.median(others) + max(_LEAST, 5 * 1.4826 * np.median(np.abs(others - np.median(others))))
    is_seen = bool(gains[best] > chance)
    shift = 0
    if best and is_seen:
        both = score(best, 0) - score()
        more, less = (both - gains[0]).mean(), (both - gains[best]).mean()  # what each adds to the other
        shift = best if more > _LEAST and less < more / 4 else 0
    return Lag(shifts, tuple(map(float, gains.values())), shift, is_seen, len(target))


def _components(parts: Sequence[NDArray], whole: Sequence[NDArray], most: int) -> list[NDArray]:
    """Returns the parts (T, F) in principal components of the whole (T, ≤ most)."""
    (together,) = whole
    mean, std = together.mean(0), together.std(0)
    used = std > 1e-9 * max(1e-12, std.max())
    centred = (together - mean)[:, used]
    _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    vectors = vectors[:, ::-1][:, :most]
    scale = (centred @ vectors).std(0) + 1e-12
    return [np.clip((part - mean)[:, used] @ vectors / scale, -_CLIP, _CLIP) * scale for part in parts]


def _foretold(features: Sequence[NDArray], target: NDArray, folds: NDArray) -> NDArray:
    """Returns how much of the target's variance is foretold of each fold, from the others."""
    x = np.concatenate(features, axis=1)
    std = x.std(0)
    x = np.clip((x - x.mean(0)) / np.where(std > 0, std, 1), -_CLIP, _CLIP)
    y, shares = target - target.mean(0), []
    for fold in range(_FOLDS):
        fit, held = folds != fold, folds == fold
        ridge = (0.01 + x.shape[1] / fit.sum()) * np.eye(x.shape[1])
        weights = np.linalg.solve(x[fit].T @ x[fit] / fit.sum() + ridge, x[fit].T @ y[fit] / fit.sum())
        shares.append(1 - np.square(y[held] - x[held] @ weights).sum() / max(1e-12, np.square(y[held]).sum()))
    return np.array(shares)
