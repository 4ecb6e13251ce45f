"""Recorded data of any format that is read, as one of our data sets: `jepa-mpc convert data LOG --output log.h5`.

A row is a step, or whatever a row was in the source; `jepa-mpc train --frameskip K` reads K of them as a block.
Pictures are cut and averaged down as goals given as pictures are. Numbers are kept as they are.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("convert data")

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from jepa_mpc import places
from jepa_mpc.cli import parse
from jepa_mpc.files import require_new
from jepa_mpc.pictures import square
from jepa_mpc.settings import Natural, Positive, Range, checked
from jepa_mpc.world_model.data.dataset import (
    MOST,
    NO_SIMULATOR,
    RECORDED,
    Compression,
    DatasetInfo,
    Episode,
    write_dataset,
)
from jepa_mpc.world_model.data.finding import few
from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.sources import Numbers, Source, done, open_source

log = logging.getLogger(__name__)

Side = Annotated[int, Range(8, 4096)]
Shift = Annotated[int, Range(-1000, 1000)]


@dataclass(frozen=True)
class DataConfig:
    """Read recorded data (LeRobot, Lance, HDF5, video and CSV, Minari) and write them as a data set to train on."""

    source: Positional[Path]
    """Folder or file; its format is recognised."""
    output: Path
    """HDF5 file to write."""
    format: str | None = None
    """Format of the source by name (a wrong one lists them), or `module:class`; the one it looks like unless given."""
    camera: str | None = None
    """Camera whose pictures to take, or several with a + between them; needed if there are several."""
    image_size: Side = 64
    """Side of the square pictures that are written."""
    task: str | None = None
    """What to call the task; the source's own name unless given."""
    action_low: tuple[float, ...] = ()
    """Least that each number of an action may be; the least recorded unless given."""
    action_high: tuple[float, ...] = ()
    """Most that each may be; the most recorded unless given."""
    fps: Positive | None = None
    """Rows a second; as the source says unless given."""
    drop_episodes: tuple[Natural, ...] = ()
    """Episodes to leave out, by number, such as `jepa-mpc inspect` names."""
    lag: Shift = 0
    """Rows by which actions act later than they stand, as `jepa-mpc inspect` finds: moves them so that they fit."""
    min_length: Annotated[int, Range(2, 10**12)] = 2
    """Rows that an episode must have to be taken."""
    compression: Compression = "none"
    """Of the pictures, each by itself; compressed ones are slower to read."""


def convert(config: DataConfig) -> Path:
    """Writes the data set, and returns its path. Raises `UserError` on what cannot be read, or is no number."""
    config = checked(config)
    require_new(config.output)
    source = open_source(config.source, config.format)
    cameras = source.chosen(config.camera)
    kept = source.without(config.drop_episodes)
    short = [index for index in kept if source.lengths[index] - abs(config.lag) < config.min_length]
    kept = [index for index in kept if index not in short]
    if short:
        log.warning("%d episodes of fewer than %d rows are left out", len(short), config.min_length)
    if not kept:
        raise DatasetError(f"{source.path} has no episode of {config.min_length} rows; lower --min-length")
    info = _info(config, source, cameras, *_ranges(source, kept, config.lag))
    write_dataset(config.output, _episodes(config, source, cameras, kept), info, config.compression)
    return config.output


def shifted(numbers: Numbers, lag: int) -> tuple[NDArray[np.float64], slice]:
    """Returns the actions of an episode's rows that have one when they act so many rows later, and those rows."""
    rows = len(numbers.action)
    taken = slice(max(0, lag), rows + min(0, lag))
    return numbers.action[max(0, -lag) : rows - max(0, lag)], taken


def _episodes(config: DataConfig, source: Source, cameras: Sequence[str], kept: Sequence[int]) -> Iterator[Episode]:
    from tqdm import tqdm

    side = config.image_size
    for index in tqdm(kept, desc="converting", unit="episode"):
        numbers = source.numbers(index)
        action, rows = shifted(numbers, config.lag)
        pixels = np.empty((len(action), len(cameras), side, side, 3), np.uint8)
        for view, camera in enumerate(cameras):
            for row, picture in enumerate(source.pictures(index, camera)):
                if rows.start <= row < rows.stop:
                    what = f"--image-size {side}: camera {camera!r} of {source.path}"
                    pixels[row - rows.start, view] = square(picture, side, what)
        state, felt = numbers.state[rows], numbers.proprio
        yield Episode(
            np.concatenate([*pixels.swapaxes(0, 1)], axis=2),
            done(action).astype(np.float32),
            state,
            np.empty((len(state), 0)),
            index in source.randomised,
            proprio=(np.empty((len(state), 0)) if felt is None else felt[rows]).astype(np.float32),
        )


def _ranges(source: Source, kept: Sequence[int], lag: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the least and the most of each number of the actions (A,). Raises `DatasetError` where some are none."""
    bad, low, high = [], np.array(np.inf), np.array(-np.inf)
    for index in kept:
        numbers = source.numbers(index)
        action, rows = shifted(numbers, lag)
        action = done(action.astype(np.float32).astype(float))  # as they are written
        felt = np.zeros(0) if numbers.proprio is None else np.nan_to_num(numbers.proprio[rows], posinf=np.inf)
        if not all((np.abs(each) < MOST).all() for each in (action, numbers.state[rows], felt)):
            bad.append(index)
        low, high = np.minimum(low, action.min(0)), np.maximum(high, action.max(0))
    if bad:
        raise DatasetError(
            f"{source.path}: actions or state of {len(bad)} episodes are not all numbers; "
            f"leave them out by --drop-episodes {few(bad)}"
        )
    return low, high


def _info(
    config: DataConfig,
    source: Source,
    cameras: Sequence[str],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> DatasetInfo:
    """Returns what is known of the data, with bounds of one action."""
    told, named = source.info, {"--action-low": config.action_low, "--action-high": config.action_high}
    block = told.action_block or 1
    bounds = dict(zip(named, (low.reshape(block, -1).min(0), high.reshape(block, -1).max(0)), strict=True))
    told_bounds = dict(zip(named, (told.action_low, told.action_high), strict=True))
    for option, given in named.items():
        if given and len(given) not in (1, len(bounds[option])):
            raise DatasetError(f"{option} must be {len(bounds[option])} numbers, or one for all, not {len(given)}")
        if given:
            bounds[option] = np.broadcast_to(given, len(bounds[option]))
        elif told_bounds[option]:
            bounds[option] = np.array(told_bounds[option])
        else:
            log.info("%s is the data's own: %s", option, " ".join(f"{value:.6g}" for value in bounds[option]))
    low, high = bounds.values()
    if (low > high).any():
        raise DatasetError("--action-low must not lie above --action-high")
    step_seconds = told.step_seconds if config.fps is None else 1 / config.fps / block
    if not step_seconds:
        log.warning("%s does not say how long a row lasts; say --fps if an agent is to act by it", source.path)
    is_foreign, names = told.is_foreign, source.state_names
    names = told.names or (names if len(set(names)) == len(names) == len(told.angles) else ())
    views = tuple(camera.replace("/", ".") for camera in cameras)
    return dataclasses.replace(
        told,
        task=config.task or (places.slug(source.path.resolve().stem) if is_foreign else told.task),
        data_policy=RECORDED if is_foreign else told.data_policy,
        simulator=NO_SIMULATOR if is_foreign else told.simulator,
        action_block=block,
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
        step_seconds=step_seconds,
        names=names,
        cameras=views if len(views) > 1 else (),
        proprio_names=source.proprio_names,
    )


def main(args: Sequence[str]) -> None:
    config = parse(DataConfig, args)
    path = convert(config)
    print(f"wrote {path}")  # noqa: T201
