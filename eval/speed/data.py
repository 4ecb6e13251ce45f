"""Windows per second from files against from memory, and what that takes: `python eval/speed/data.py`.

All ways to read are timed in turn in one process, round by round, on the same windows of the same file; medians and
their ratios are what to quote. A second file, far larger than what may be kept, shows whether the process grows.
"""

import functools
import importlib
import json
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.world_model.checkpoint import git_commit
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError, DatasetInfo, Episode, write_dataset
from jepa_mpc.world_model.training.loop import batches

ROWS, SIDE = 41, 64  # of an episode, of a picture


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure how fast windows are drawn for training, and how much memory that takes."""

    data: Path | None = None
    """HDF5 data set; one of noise is made unless given."""
    num_episodes: int = 500
    """Of the one that is made."""
    batch_size: int = 64
    """Windows in a batch."""
    num_frames: int = 8
    """Frames in a window."""
    num_batches: int = 100
    """Batches in a round."""
    num_rounds: int = 7
    """Rounds, of which the median counts."""
    num_workers: int = 2
    """Threads that read ahead."""
    large_gigabytes: float = 20
    """Size of the file of holes from which windows are drawn while memory is watched; 0 leaves it out."""
    rival: Path | None = None
    """A checkout of stable-worldmodel, whose reader is timed too, under PyTorch's loader with as many workers."""
    output: Path | None = None
    """JSON file to write."""


def noise(num_episodes: int) -> Iterator[Episode]:
    rng = np.random.default_rng(0)
    for _ in range(num_episodes):
        pixels = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)
        action, zeros = rng.standard_normal((ROWS - 1, 10), np.float32), np.zeros((ROWS, 2))
        yield Episode(pixels, action, zeros, zeros)


INFO = DatasetInfo("noise", 0, "noise", "none", 5, 1, (True, True))


def write_holes(path: Path, num_episodes: int) -> None:
    """A data set of that many episodes whose pictures have places in the file, but take none on the disk."""
    rows = num_episodes * ROWS
    write_dataset(path, noise(1), INFO)
    with h5py.File(path, "a") as file:
        del file["pixels"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, SIDE, SIDE, 3))
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((rows, SIDE, SIDE, 3))
        h5py.h5d.create(file.id, b"pixels", h5py.h5t.NATIVE_UINT8, space, plist)
        for name in ("action", "observation", "qpos", "qvel", "ep_idx", "step_idx"):
            file[name].resize(rows, axis=0)
        del file["ep_len"], file["ep_offset"]
        file["ep_len"] = np.full(num_episodes, ROWS)
        file["ep_offset"] = ROWS * np.arange(num_episodes)


def stable_worldmodel_batches(checkout: Path, path: Path, config: BenchmarkConfig) -> Callable[[], Iterable[Any]]:
    """A round of their reader's batches, of the same number and size."""
    package = checkout / "stable_worldmodel"
    if not (package / "data/formats/hdf5.py").is_file():
        raise ValueError(f"{checkout} is no checkout of stable-worldmodel; clone it from its GitHub page")
    for name in ("stable_worldmodel", "stable_worldmodel.data", "stable_worldmodel.data.formats"):
        module = types.ModuleType(name)  # their packages' own imports need far more
        module.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = module
    try:
        theirs = importlib.import_module("stable_worldmodel.data.formats.hdf5")
    except ModuleNotFoundError as error:
        raise ValueError(f"stable-worldmodel's reader needs {error.name}; pip install {error.name}") from error
    data = theirs.HDF5Dataset(path=path, num_steps=config.num_frames, keys_to_load=["pixels", "action"])
    sampler = torch.utils.data.RandomSampler(data, num_samples=config.num_batches * config.batch_size)
    return lambda: torch.utils.data.DataLoader(
        data, config.batch_size, sampler=sampler, num_workers=config.num_workers, persistent_workers=False
    )


def draw(data: Dataset, config: BenchmarkConfig, rng: np.random.Generator) -> Any:
    return data.windows(data.sample_rows(config.batch_size, config.num_frames, rng))


def measure(path: Path, config: BenchmarkConfig) -> dict[str, list[float]]:
    """Windows per second of each round, by way of reading."""
    memory, files = (Dataset(path, in_memory=where) for where in ("yes", "no"))
    steps, workers = range(config.num_batches), config.num_workers
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "memory": lambda: batches(functools.partial(draw, memory, config), steps, [0], 0),
        f"memory, {workers} workers": lambda: batches(functools.partial(draw, memory, config), steps, [0], workers),
        f"files, {workers} workers": lambda: batches(functools.partial(draw, files, config), steps, [0], workers),
    }
    if config.rival is not None:
        ways[f"stable-worldmodel, {workers} workers"] = stable_worldmodel_batches(config.rival, path, config)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(config.num_rounds), desc="rounds"):
        for name, way in ways.items():
            begin = time.perf_counter()
            count = sum(1 for _ in way())
            rates[name].append(count * config.batch_size / (time.perf_counter() - begin))
    return rates


def watch_memory(path: Path, config: BenchmarkConfig) -> dict[str, float]:
    """Gigabytes that the process has before the first window and at most, while it reads as much as the file holds."""
    data = Dataset(path, in_memory="no")
    window = config.batch_size * config.num_frames * SIDE * SIDE * 3
    before = largest = _resident()
    steps = range(int(config.large_gigabytes * 1e9 / window))
    reading = batches(functools.partial(draw, data, config), steps, [0], config.num_workers)
    for _ in tqdm(reading, total=len(steps), desc=f"{config.large_gigabytes:g} GB"):
        largest = max(largest, _resident())
    return {"file_gb": path.stat().st_size / 1e9, "before_gb": before, "largest_gb": largest}


def _resident() -> float:
    """Gigabytes of this process in memory, mapped pages of files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError("this needs Linux, whose /proc says how large a process is; use --large-gigabytes 0")


def run(config: BenchmarkConfig) -> dict[str, Any]:
    for option in ("num_episodes", "batch_size", "num_frames", "num_batches", "num_rounds", "num_workers"):
        if (value := getattr(config, option)) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    with tempfile.TemporaryDirectory() as folder:
        path = config.data or Path(folder) / "noise.h5"
        if config.data is None:
            write_dataset(path, noise(config.num_episodes), INFO)
        rates = measure(path, config)
        results: dict[str, Any] = {"windows_per_second": {name: float(np.median(r)) for name, r in rates.items()}}
        median = results["windows_per_second"]
        results |= {"of_memory": {name: rate / median["memory"] for name, rate in median.items()}, "rounds": rates}
        if config.large_gigabytes:
            holes = Path(folder) / "holes.h5"
            write_holes(holes, int(config.large_gigabytes * 1e9 / (ROWS * SIDE * SIDE * 3)))
            results["large_file"] = watch_memory(holes, config)
    command = f"python eval/speed/data.py --num-rounds {config.num_rounds}"
    command += " --rival CHECKOUT" if config.rival else ""
    settings = {name: value for name, value in asdict(config).items() if not isinstance(value, Path)}
    return {**results, "settings": settings, "command": command} | {
        "commit": git_commit(),
        "torch_threads": torch.get_num_threads(),
    }


def main() -> None:
    config = tyro.cli(BenchmarkConfig)
    try:
        results = run(config)
        if config.output is not None:
            config.output.write_text(json.dumps(results, indent=2) + "\n")
    except (DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    table = Table("from", "windows/s", "of memory")
    for name, rate in results["windows_per_second"].items():
        table.add_row(name, f"{rate:,.0f}", f"{results['of_memory'][name]:.2f}")
    console = Console()
    console.print(table)
    if (large := results.get("large_file")) is not None:
        console.print(
            "a file of {file_gb:.1f} GB: {before_gb:.2f} GB before, at most {largest_gb:.2f} GB".format(**large)
        )


if __name__ == "__main__":
    main()
