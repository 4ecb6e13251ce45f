"""What is wrong with recorded data, each with its fix, before a training is spent on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.data.camera_check import (
    SHEET,
    Look,
    empty_findings,
    find_repeats,
    look_at,
    mean_of_known,
    repeat_findings,
)
from jepa_mpc.world_model.data.dataset import FRAMESKIP, is_unused, spread
from jepa_mpc.world_model.data.finding import Finding, few
from jepa_mpc.world_model.data.lag import Lag, find_lag
from jepa_mpc.world_model.data.sources import SOURCES, Numbers, Source, done
from jepa_mpc.world_model.training.config import TrainConfig

NUM_FRAMES = TrainConfig.num_frames
_ROWS = 20_000  # that the lag is looked for in


@dataclass(frozen=True)
class Range:
    """What one number of actions or states is: its name, least, mean, most and standard deviation."""

    name: str
    least: float
    mean: float
    most: float
    std: float


@dataclass(frozen=True)
class CameraReport:
    """What a camera shows: size of its pictures, and shares of those looked at that are repeated or empty."""

    name: str
    width: int
    height: int
    num_looked_at: int
    repeated: float
    empty: float


@dataclass(frozen=True)
class Report:
    """What data are, and what is wrong with them."""

    path: str
    format: str
    num_episodes: int
    num_rows: int
    shortest: int
    longest: int
    rows_per_second: float  # 0 if it is not said
    block: int  # actions in a row
    cameras: tuple[CameraReport, ...]
    actions: tuple[Range, ...]
    states: tuple[Range, ...]
    lags: dict[str, Lag | None]  # by camera, and of the state
    findings: tuple[Finding, ...]


class _Episodes(NamedTuple):
    """The numbers of all episodes, and which could not be read."""

    numbers: dict[int, Numbers]
    broken: list[Finding]


def inspect(
    source: Source,
    cameras: Sequence[str] | None = None,
    num_episodes: int = 50,
    frameskip: int | None = None,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[Report, dict[str, list[NDArray[np.uint8]]]]:
    """Looks at recorded data; returns the report, and by camera rows of pictures for a contact sheet.

    Args:
        cameras: whose pictures are looked at; all unless given.
        num_episodes: whose pictures are looked at, evenly from all; numbers are looked at in all.
        frameskip: rows in a block of the training to come.
        progress: shows how far it is, around the episodes whose pictures are looked at.
    """
    cameras = source.cameras if cameras is None else cameras
    told = source.info
    frameskip = frameskip or (1 if told.action_block else FRAMESKIP)
    read = _read(source)
    findings = [
        *read.broken,
        *_lengths(source, frameskip),
        *_numbers(source, read.numbers),
        *_times(source, read.numbers),
    ]
    looks: dict[str, dict[int, Look]] = {camera: {} for camera in cameras}
    sizes: dict[str, tuple[int, int]] = {}
    for index in progress(spread(np.array(sorted(read.numbers), int), num_episodes).tolist()):
        for camera in cameras:
            try:
                looks[camera][index], sizes[camera] = look_at(source, index, camera)
            except UserError as error:
                findings.append(Finding(str(error), f"leave it out: --drop-episodes {index}", (index,)))
    reports = []
    for camera, seen in looks.items():
        repeated = {index: find_repeats(look, read.numbers[index]) for index, look in seen.items()}
        empty = {index: look.is_empty for index, look in seen.items()}
        findings += [*repeat_findings(camera, repeated), *empty_findings(camera, seen)]
        rows = [each.rows for each in repeated.values()], [*empty.values()]
        share = [mean_of_known(np.concatenate(each)) if each else 0.0 for each in rows]
        height, width = sizes.get(camera, (0, 0))
        reports.append(CameraReport(camera, width, height, sum(map(len, empty.values())), *share))
    lags = _lags(looks, read.numbers)
    findings += _lag_findings(source, lags)
    report = Report(
        path=str(source.path),
        format=next((name for name in SOURCES if SOURCES[name] is type(source)), type(source).__name__),
        num_episodes=len(source.lengths),
        num_rows=int(source.lengths.sum()),
        shortest=int(source.lengths.min()),
        longest=int(source.lengths.max()),
        rows_per_second=1 / source.row_seconds if source.row_seconds else 0.0,
        block=told.action_block or 1,
        cameras=tuple(reports),
        actions=_ranges("action", source.action_names, [each.action for each in read.numbers.values()]),
        states=_ranges("state", source.state_names, [each.state for each in read.numbers.values()]),
        lags=lags,
        findings=tuple(findings),
    )
    return report, {camera: [look.shown for look in _some(seen)] for camera, seen in looks.items()}


def _some(looks: dict[int, Look]) -> list[Look]:
    chosen = spread(np.array(sorted(looks), int), SHEET[0])
    return [looks[index] for index in chosen.tolist()]


def _read(source: Source) -> _Episodes:
    numbers, broken = {}, []
    for index in range(len(source.lengths)):
        try:
            numbers[index] = source.numbers(index)
        except UserError as error:
            broken.append(Finding(str(error), f"leave it out: --drop-episodes {index}", (index,)))
    return _Episodes(numbers, broken)


def _lengths(source: Source, frameskip: int) -> Iterator[Finding]:
    needed = (NUM_FRAMES - 1) * frameskip + 1
    short = np.flatnonzero(source.lengths < needed)
    if len(short):
        yield Finding(
            f"{len(short)} episodes have fewer than the {needed} rows of a training's window ({NUM_FRAMES} frames, "
            f"{frameskip} rows apart); nothing is learned from them",
            "train with a smaller --frameskip, or --num-frames and --predictor-num-frames, or record longer ones",
            tuple(short.tolist()),
        )
    if len(source.lengths) < 2:
        yield Finding("there is one episode, and one is held out of every training", "record more, or cut it in two")


def _numbers(source: Source, numbers: dict[int, Numbers]) -> Iterator[Finding]:
    """Yields what is wrong with actions and states by themselves."""
    actions = {index: done(each.action) for index, each in numbers.items()}
    for kind, columns in (("actions", actions), ("states", {i: each.state for i, each in numbers.items()})):
        bad = [index for index, values in columns.items() if not np.isfinite(values).all()]
        if bad:
            count = sum(int((~np.isfinite(columns[index])).any(1).sum()) for index in bad)
            yield Finding(
                f"{count} rows of {kind} are not numbers (NaN or infinite)",
                f"write them again, or leave those episodes out: --drop-episodes {few(bad)}",
                tuple(bad),
            )
    together = np.concatenate([*actions.values()]) if actions else np.empty((0, 0))
    together = together[np.isfinite(together).all(1)]
    if len(together):
        names = _named("action", source.action_names, together.shape[1])
        idle = [name for name, is_idle in zip(names, is_unused(together), strict=True) if is_idle]
        if idle:
            yield Finding(
                f"{', '.join(idle)} never varies: "
                + ("nothing is explored" if len(idle) == len(names) else "that joint is not explored"),
                "check that it is recorded; training treats what never varies as unused, and plans do not move it",
            )


def _times(source: Source, numbers: dict[int, Numbers]) -> Iterator[Finding]:
    """Yields what is wrong with the rows' times."""
    steps = {index: np.diff(each.seconds) for index, each in numbers.items() if each.seconds is not None}
    steps = {index: each for index, each in steps.items() if len(each)}
    if not steps:
        return
    usual = float(np.nanmedian(np.concatenate([*steps.values()])))
    back = [index for index, each in steps.items() if not (each > 0).all()]
    if back:
        yield Finding(
            "times do not ascend, or are not numbers",
            f"write them again, or leave those episodes out: --drop-episodes {few(back)}",
            tuple(back),
        )
    gaps = {index: each[each > 1.5 * usual] for index, each in steps.items() if (each > 1.5 * usual).any()}
    if gaps and usual > 0:
        longest = max(float(each.max()) for each in gaps.values())
        yield Finding(
            f"{sum(map(len, gaps.values()))} gaps between rows, of up to {longest:.3g} s, where {usual:.3g} s is usual",
            f"rows are missing there: record with less load, or leave those episodes out: --drop-episodes {few(gaps)}",
            tuple(gaps),
        )
    told = source.row_seconds
    if told and usual > 0 and abs(usual / told - 1) > 0.05:
        yield Finding(
            f"rows are {usual:.4g} s apart, and the data say {told:.4g} s",
            f"say the true rate: convert data --fps {1 / usual:.4g}",
        )


def _lags(looks: dict[str, dict[int, Look]], numbers: dict[int, Numbers]) -> dict[str, Lag | None]:
    """Returns where actions act, by camera, and in the state."""
    seen: dict[str, dict[int, NDArray[Any]]]
    seen = {camera: {index: look.small for index, look in each.items()} for camera, each in looks.items()}
    if any(each.state.shape[1] for each in numbers.values()):
        seen["state"] = {index: each.state for index, each in numbers.items() if np.isfinite(each.state).all()}
    lags = {}
    for name, parts in seen.items():
        whole = {i: part for i, part in parts.items() if np.isfinite(done(numbers[i].action)).all()}
        most = max(1, _ROWS // max(1, int(np.mean([len(part) for part in whole.values()])))) if whole else 0
        chosen = spread(np.array(sorted(whole), int), most).tolist() if whole else []
        lags[name] = find_lag([whole[i] for i in chosen], [numbers[i].action for i in chosen])
    return lags


def _lag_findings(source: Source, lags: dict[str, Lag | None]) -> Iterator[Finding]:
    seconds = source.row_seconds
    for name, lag in lags.items():
        if lag is None or not lag.shift:
            continue
        what = "the state" if name == "state" else f"the pictures of camera {name!r}"
        shift, rows = lag.shift, f"{abs(lag.shift)} rows"
        rows += f" ({abs(shift) * seconds * 1000:.0f} ms)" if seconds else ""
        if shift > 0:
            says = f"{what} answer {rows} after the action beside them"
            own = f"; if the robot itself takes so long, leave it, and train with --frameskip {shift + 1} or more"
        else:
            says, own = f"{what} have answered {rows} before the action beside them", ""
        yield Finding(says, f"move the actions: convert data --lag {shift}{own}")
    known = [lag for lag in lags.values() if lag is not None]
    enough = lags.get("state") is not None and max(lag.num_rows for lag in known) >= 1000  # pictures alone may hide it
    if enough and not any(lag.is_seen for lag in known):
        yield Finding(
            "actions foretell nothing of what follows, by whatever rows they are moved",
            "check that they are those that were sent, in the order of the rows, and that the camera sees the robot",
        )


def _ranges(kind: str, names: Sequence[str], parts: Sequence[NDArray[np.float64]]) -> tuple[Range, ...]:
    values = np.concatenate(parts) if parts else np.empty((0, 0))
    finite = [column[np.isfinite(column)] for column in values.T]
    return tuple(
        Range(name, *(float(f(column)) if len(column) else np.nan for f in (np.min, np.mean, np.max, np.std)))
        for name, column in zip(_named(kind, names, len(finite)), finite, strict=True)
    )


def _named(kind: str, names: Sequence[str], count: int) -> list[str]:
    """Returns what numbers are called: by their names, where there are as many, and otherwise by their place."""
    called = names if len(names) == count else [str(index) for index in range(count)]
    return [name if name.startswith(kind) else f"{kind} {name}" for name in called]
