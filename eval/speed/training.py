"""Windows per second of training, by processes, threads and precision.

Every variant is the training command itself on the same data for the same steps, in turn, round by round; medians and
their ratios are what to quote. The learning time is the training's own, which leaves start-up out.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed training")

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed.data import write_noise
from jepa_mpc.eval.speed.harness import Results, measurement, rates_in_turn, show_rates
from jepa_mpc.settings import Count
from jepa_mpc.world_model.checkpoint import load_info
from jepa_mpc.world_model.training.config import TRAIN_PRESETS


@dataclass(frozen=True)
class TrainingSpeedConfig:
    """Time trainings beside each other."""

    data: Path | None = None
    """HDF5 data set; one of noise is made unless given."""
    task: str = "reacher"
    """Task that it is of."""
    preset: str = "default"
    """Of the trainings."""
    num_steps: Count = 60
    """Steps of encoder and predictor together."""
    num_rounds: Count = 3
    """Rounds, of which the median counts."""
    cores: Count = 2
    """Threads of one process, and processes of one thread."""
    compile: bool = False
    """Time a compiled encoder too."""
    output: Path | None = None
    """JSON file to write."""


def variants(config: TrainingSpeedConfig) -> dict[str, tuple[int, int, list[str]]]:
    """Returns processes, threads of each, and further options, by what to call them."""
    n = config.cores
    compiled = {f"1 process × {n} threads, compiled": (1, n, ["--compile"])} if config.compile else {}
    return {
        f"1 process × {n} threads": (1, n, []),
        f"{n} processes × 1 thread": (n, 1, []),
        f"1 process × {n} threads, float32": (1, n, ["--precision", "float32"]),
        **compiled,
    }


def command(config: TrainingSpeedConfig, data: Path, output: Path, processes: int, options: list[str]) -> list[str]:
    """Returns the training's command line."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [sys.executable, *(launch if processes > 1 else []), "-m", "jepa_mpc", "train"]
    words += ["--preset", config.preset, "--task", config.task, "--data", str(data), "--output", str(output)]
    words += ["--num-steps", str(config.num_steps), "--predictor-steps", "0", "--reachability-steps", "0"]
    return [*words, "--report-frames", "2", "--report-every", "1000000", "--save-every", "1000000", *options]


def windows_per_second(
    config: TrainingSpeedConfig, data: Path, processes: int, threads: int, options: list[str]
) -> float:
    """Returns the rate of one training. Raises `UserError` with its own last line if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        words = command(config, data, output, processes, options)
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it was ended"]
            raise UserError(f"a training failed: {said[-1].removeprefix('error: ')}")
        info = load_info(output)
    return config.num_steps * info.training["batch_size"] / info.learning_seconds


@measurement
def measure(config: TrainingSpeedConfig) -> Results:
    """Returns windows per second by variant."""
    TRAIN_PRESETS[config.preset]  # raises if there is none
    with tempfile.TemporaryDirectory() as folder:
        data = config.data or Path(folder) / "noise.h5"
        if config.data is None:
            write_noise(data, 200)
        ways = {name: partial(windows_per_second, config, data, *way) for name, way in variants(config).items()}
        return rates_in_turn(ways, config.num_rounds)


def main(args: Sequence[str]) -> None:
    show_rates(measure(parse(TrainingSpeedConfig, args)))
