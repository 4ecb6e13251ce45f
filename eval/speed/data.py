"""Windows per second from files against from memory, and what that takes.

All ways to read are timed in turn in one process, round by round, on the same windows of the same file; medians and
their ratios are what to quote. A second file, far larger than what may be kept, shows whether the process grows.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed data")

import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from tqdm import tqdm

from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed.harness import Results, measurement, rates_in_turn, show_rates
from jepa_mpc.eval.speed.stable_worldmodel import stable_worldmodel_batches
from jepa_mpc.settings import Count, NonNegative
from jepa_mpc.world_model.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from jepa_mpc.world_model.training.loop import batches

ROWS, SIDE = 41, 64  # of an episode, of a picture
INFO = DatasetInfo("reacher", 0, "noise", "none", 5, 1, (True, True))


@dataclass(frozen=True)
class DataSpeedConfig:
    """Measure how fast windows are drawn for training, and how much memory that takes."""

    data: Path | None = None
    """HDF5 data set; one of noise is made unless given."""
    num_episodes: Count = 500
    """Of the one that is made."""
    batch_size: Count = 64
    """Windows in a batch."""
    num_frames: Count = 8
    """Frames in a window."""
    num_batches: Count = 100
    """Batches in a round."""
    num_rounds: Count = 7
    """Rounds, of which the median counts."""
    num_workers: Count = 2
    """Threads that read ahead."""
    large_gigabytes: NonNegative = 20
    """Size of the file of holes from which windows are drawn while memory is watched; 0 leaves it out."""
    stable_worldmodel: Path | None = None
    """A checkout of stable-worldmodel, whose reader is timed too, under PyTorch's loader with as many workers."""
    output: Path | None = None
    """JSON file to write."""


def write_noise(path: Path, num_episodes: int) -> None:
    """Writes a data set of reacher's shape whose pictures no compression makes smaller."""
    rng, zeros = np.random.default_rng(0), np.zeros((ROWS, 2))

    def episode() -> Episode:
        pixels = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)
        return Episode(pixels, rng.standard_normal((ROWS - 1, 10), np.float32), zeros, zeros)

    write_dataset(path, (episode() for _ in range(num_episodes)), INFO)


def write_holes(path: Path, num_episodes: int) -> None:
    """Writes a data set of that many episodes whose pictures have places in the file, but take none on the disk."""
    import h5py

    rows = num_episodes * ROWS
    write_noise(path, 1)
    with h5py.File(path, "a") as file:
        del file["pixels"], file["ep_len"], file["ep_offset"]
        places = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        places.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        places.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        file.create_dataset("pixels", (rows, SIDE, SIDE, 3), np.uint8, chunks=(1, SIDE, SIDE, 3), dcpl=places)
        for name in ("action", "observation", "qpos", "qvel", "ep_idx", "step_idx"):
            file[name].resize(rows, axis=0)
        file["ep_len"] = np.full(num_episodes, ROWS)
        file["ep_offset"] = ROWS * np.arange(num_episodes)


def ways(path: Path, config: DataSpeedConfig) -> dict[str, Callable[[], Iterable[Any]]]:
    """Returns, by way to read a file, what yields a round's batches."""
    workers, steps = config.num_workers, range(config.num_batches)
    memory, files = (functools.partial(draw, Dataset(path, in_memory=where), config) for where in ("yes", "no"))
    found: dict[str, Callable[[], Iterable[Any]]] = {
        "memory": lambda: batches(memory, steps, [0], 0),
        f"memory, {workers} workers": lambda: batches(memory, steps, [0], workers),
        f"files, {workers} workers": lambda: batches(files, steps, [0], workers),
    }
    if config.stable_worldmodel is not None:
        sizes = (config.num_batches, config.batch_size, config.num_frames, workers)
        theirs = stable_worldmodel_batches(config.stable_worldmodel, path, *sizes)
        found[f"stable-worldmodel, {workers} workers"] = theirs
    return found


def draw(data: Dataset, config: DataSpeedConfig, rng: np.random.Generator) -> Any:
    """Returns a batch of windows."""
    return data.windows(data.sample_rows(config.batch_size, config.num_frames, rng))


def rate(way: Callable[[], Iterable[Any]], batch_size: int) -> float:
    """Returns the windows per second of one round."""
    begin = time.perf_counter()
    count = sum(1 for _ in way())
    return count * batch_size / (time.perf_counter() - begin)


def watch_memory(path: Path, config: DataSpeedConfig) -> dict[str, float]:
    """Returns gigabytes of the file, and of the process before the first window and at most, while it reads as much as
    the file holds.
    """
    data = Dataset(path, in_memory="no")
    window = config.batch_size * config.num_frames * SIDE * SIDE * 3
    before = largest = _resident()
    steps = range(int(config.large_gigabytes * 1e9 / window))
    reading = batches(functools.partial(draw, data, config), steps, [0], config.num_workers)
    for _ in tqdm(reading, total=len(steps), desc=f"{config.large_gigabytes:g} GB"):
        largest = max(largest, _resident())
    return {"file_gb": path.stat().st_size / 1e9, "before_gb": before, "largest_gb": largest}


def _resident() -> float:
    """Returns gigabytes of this process in memory, mapped pages of files included."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024 / 1e9


@measurement
def measure(config: DataSpeedConfig) -> Results:
    """Returns windows per second by way to read, and what the process grows by on a large file."""
    if config.large_gigabytes and not Path("/proc/self/status").exists():
        raise UserError("only Linux says how large a process is; use --large-gigabytes 0")
    with tempfile.TemporaryDirectory() as folder:
        path, holes = config.data or Path(folder) / "noise.h5", Path(folder) / "holes.h5"
        if config.data is None:
            write_noise(path, config.num_episodes)
        rounds = {name: functools.partial(rate, way, config.batch_size) for name, way in ways(path, config).items()}
        results = rates_in_turn(rounds, config.num_rounds)
        if config.large_gigabytes:
            write_holes(holes, int(config.large_gigabytes * 1e9 / (ROWS * SIDE * SIDE * 3)))
            results["large_file"] = watch_memory(holes, config)
    return {**results, "torch_threads": torch.get_num_threads()}


def main(args: Sequence[str]) -> None:
    results = measure(parse(DataSpeedConfig, args))
    show_rates(results)
    if (large := results.get("large_file")) is not None:
        rich.print("a file of {file_gb:.1f} GB: {before_gb:.2f} GB before, at most {largest_gb:.2f} GB".format(**large))
