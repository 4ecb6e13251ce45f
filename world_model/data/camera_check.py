"""What is wrong with a camera's pictures: repeated ones while the robot moves, and empty ones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.dataset import spread
from jepa_mpc.world_model.data.finding import Finding, few
from jepa_mpc.world_model.data.sources import Numbers, Source

SHEET = (6, 8)  # episodes, and pictures of each, on a contact sheet
_SMALL = 16  # side of the pictures in which changes are looked for
_SAME = 0.05  # of the usual change, below which a picture is the one before
_OFTEN = 0.02  # of the pictures that should have changed: a share worth speaking of
_NEAR = 4  # rows before and after, within which a picture must change if the robot moves
_JUMP = 1.25  # by how much more than usual it changes after one was dropped
_DARK, _FLAT = 12, 6  # levels of 255: the brightest of a black picture, the range of an empty one


class Look(NamedTuple):
    """What is kept of an episode's T pictures."""

    small: NDArray[np.float32]  # (T, F) shrunk, in grey
    change: NDArray[np.float64]  # (T,) mean difference to the one before; the first is NaN
    brightest: NDArray[np.float64]  # (T,)
    range: NDArray[np.float64]  # (T,) of the channel that varies most
    shown: NDArray[np.uint8]  # (S, H, W, 3), for a contact sheet

    @property
    def is_empty(self) -> NDArray[np.bool_]:
        """Returns which pictures (T,) show nothing."""
        return self.range < _FLAT


class Repeats(NamedTuple):
    """Pictures of an episode that are the one before."""

    rows: NDArray[np.floating]  # (T,) 1 where it is, 0 where it is not, NaN where the robot hardly moves
    gap: float  # rows from one new picture to the next, as a rule; inf if there is none
    jump: float  # change after a repeated picture, in usual ones; inf where the state tells that the robot moves


def look_at(source: Source, index: int, camera: str) -> tuple[Look, tuple[int, int]]:
    """Returns what is kept of an episode's pictures, and their size."""
    from PIL import Image

    small, change, ends, shown, before = [], [], [], [], None
    wanted = set(spread(np.arange(source.lengths[index]), SHEET[1]).tolist())
    shape = (0, 0)
    for row, picture in enumerate(source.pictures(index, camera)):
        image, shape = Image.fromarray(picture), picture.shape[:2]
        middle = np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float32)
        grey = middle.reshape(_SMALL, 64 // _SMALL, _SMALL, 64 // _SMALL, 3).mean((1, 3, 4))
        small.append(grey.ravel())
        change.append(np.nan if before is None else float(np.abs(middle - before).mean()))
        ends.append((middle.max(), np.ptp(middle, axis=(0, 1)).max()))
        before = middle
        if row in wanted:
            image.thumbnail((128, 128))
            shown.append(np.asarray(image))
    brightest, span = np.array(ends).T
    return Look(np.stack(small), np.array(change), brightest, span, np.stack(shown)), shape


def find_repeats(look: Look, numbers: Numbers) -> Repeats:
    """Finds the rows whose picture is the one before, though the robot moves there.

    It moves in a row in which the state changes more than in three of four, or where none is recorded, in one before
    and after which the picture changes so.
    """
    change = np.where(look.is_empty, np.nan, look.change)  # empty pictures are a matter of their own
    if np.isfinite(change).sum() < 8:
        return Repeats(np.full(len(change), np.nan), 1.0, np.nan)
    usual = max(0.01, float(np.nanpercentile(change, 75)))
    same = change <= max(0.01, _SAME * usual)
    if numbers.state.shape[1]:
        steps = np.diff(numbers.state, axis=0, prepend=numbers.state[:1])
        with np.errstate(invalid="ignore"):
            moved = np.linalg.norm(steps / (np.nanstd(steps, axis=0) + 1e-12), axis=1)
            is_fast = (moved > 0) & (moved >= np.nanpercentile(moved[1:], 75))
    else:
        near = np.lib.stride_tricks.sliding_window_view(np.pad(np.nan_to_num(change), _NEAR), _NEAR).max(1)
        is_fast = np.minimum(near[: -_NEAR - 1], near[_NEAR + 1 :]) >= usual
    rows = np.where(is_fast & np.isfinite(change), same, np.nan)
    new = np.flatnonzero(~same[1:]) + 1
    gap = float(np.median(np.diff(new))) if len(new) > 1 else np.inf
    after, others = change[1:][(rows[:-1] == 1) & ~same[1:]], change[1:][(rows[1:] == 0) & ~same[:-1]]
    jump = float(np.nanmean(after) / np.nanmean(others)) if len(after) and len(others) else np.nan
    return Repeats(rows, gap, np.inf if numbers.state.shape[1] else jump)


def repeat_findings(camera: str, repeated: dict[int, Repeats]) -> Iterator[Finding]:
    """Yields whether a camera shows one picture all the time, is slower than the rows, or drops pictures."""
    known = {index: each for index, each in repeated.items() if np.isfinite(each.rows).any()}
    bad = [index for index, each in known.items() if np.nanmean(each.rows) >= _OFTEN]
    if not bad:
        return
    share = float(np.nanmean(np.concatenate([each.rows for each in known.values()])))
    gap = float(np.median([known[index].gap for index in bad]))
    jump = mean_of_known(np.array([known[index].jump for index in bad]))
    where = f"of the pictures of camera {camera!r} repeat the one before while the robot moves"
    if gap == np.inf:
        yield Finding(
            f"camera {camera!r} shows one picture all the time",
            "check that it is this camera that sees the robot, and that its driver delivers",
            tuple(bad),
        )
    elif gap > 1:
        yield Finding(
            f"{share:.0%} {where}: it gives a new one every {gap:.3g} rows",
            f"record at the camera's rate, or train with --frameskip {int(np.ceil(gap))} or a multiple of it",
            tuple(bad),
        )
    elif share >= _OFTEN / 2 and jump > _JUMP:  # after standing still for a moment it would not jump
        yield Finding(
            f"{share:.0%} {where}: pictures were dropped",
            f"record with less load on the machine, or leave those episodes out: --drop-episodes {few(bad)}",
            tuple(bad),
        )


def empty_findings(camera: str, seen: dict[int, Look]) -> Iterator[Finding]:
    for what, is_so in (
        ("black", lambda look: look.brightest <= _DARK),
        ("of one colour", lambda look: look.is_empty & (look.brightest > _DARK)),
    ):
        bad = {index: int(is_so(look).sum()) for index, look in seen.items() if is_so(look).any()}
        if bad:
            yield Finding(
                f"{sum(bad.values())} pictures of camera {camera!r} are {what}",
                f"check its cable, lid and exposure, and leave those episodes out: --drop-episodes {few(bad)}",
                tuple(bad),
            )


def mean_of_known(values: NDArray) -> float:
    """Returns the mean of those that are not NaN, or 0."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
