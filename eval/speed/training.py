"""Windows per second of training, by processes, threads and precision: `python eval/speed/training.py`.

Every variant is the training command itself on the same data for the same steps, in turn, round by round; medians and
their ratios are what to quote. The learning time is the training's own, which leaves start-up out.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.eval.speed.data import INFO, noise
from jepa_mpc.world_model.checkpoint import git_commit
from jepa_mpc.world_model.data.dataset import write_dataset


@dataclass(frozen=True)
class BenchmarkConfig:
    """Time trainings beside each other."""

    data: Path | None = None
    """HDF5 data set; one of noise is made unless given."""
    task: str = INFO.task
    """Task that it is of."""
    preset: Literal["default", "debug", "paper"] = "default"
    """Of the trainings."""
    num_steps: int = 60
    """Steps of encoder and predictor together."""
    num_rounds: int = 3
    """Rounds, of which the median counts."""
    cores: int = 2
    """Threads of one process, and processes of one thread."""
    compile: bool = False
    """Time a compiled encoder too."""
    output: Path | None = None
    """JSON file to write."""


def variants(config: BenchmarkConfig) -> dict[str, tuple[int, int, list[str]]]:
    """Processes, threads of each, and further options."""
    n = config.cores
    wanted: dict[str, tuple[int, int, list[str]]] = {
        f"1 process × {n} threads": (1, n, []),
        f"{n} processes × 1 thread": (n, 1, []),
        f"1 process × {n} threads, float32": (1, n, ["--precision", "float32"]),
    }
    if config.compile:
        wanted[f"1 process × {n} threads, compiled"] = (1, n, ["--compile"])
    return wanted


def windows_per_second(config: BenchmarkConfig, data: Path, processes: int, threads: int, options: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(launch if processes > 1 else []), "world_model/train.py"]
        command += ["--preset", config.preset, "--task", config.task, "--data", str(data), "--output", f"{folder}/run"]
        command += ["--num-steps", str(config.num_steps), "--predictor-steps", "0", "--reachability-steps", "0"]
        command += ["--report-frames", "2", "--report-every", "1000000", "--save-every", "1000000", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": "."}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"a training failed: {done.stderr.strip().splitlines()[-1]}")
        info = json.loads((Path(folder) / "run/config.json").read_text())
    return config.num_steps * info["training"]["batch_size"] / info["learning_seconds"]


def run(config: BenchmarkConfig) -> dict[str, Any]:
    for option in ("num_steps", "num_rounds", "cores"):
        if (value := getattr(config, option)) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    rates: dict[str, list[float]] = {name: [] for name in variants(config)}
    with tempfile.TemporaryDirectory() as folder:
        data = config.data or Path(folder) / "noise.h5"
        if config.data is None:
            write_dataset(data, noise(200), INFO)
        with tqdm(total=config.num_rounds * len(rates), desc="trainings") as bar:
            for _ in range(config.num_rounds):
                for name, variant in variants(config).items():
                    rates[name].append(windows_per_second(config, data, *variant))
                    bar.update()
    medians = {name: float(np.median(each)) for name, each in rates.items()}
    first = next(iter(medians.values()))
    return {
        "windows_per_second": medians,
        "of_the_first": {name: rate / first for name, rate in medians.items()},
        "rounds": rates,
        "settings": {name: value for name, value in asdict(config).items() if not isinstance(value, Path)},
        "command": f"python eval/speed/training.py --num-rounds {config.num_rounds} --num-steps {config.num_steps}",
        "commit": git_commit(),
    }


def main() -> None:
    config = tyro.cli(BenchmarkConfig)
    try:
        results = run(config)
        if config.output is not None:
            config.output.write_text(json.dumps(results, indent=2) + "\n")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    table = Table("training", "windows/s", "of the first")
    for name, rate in results["windows_per_second"].items():
        table.add_row(name, f"{rate:,.1f}", f"{results['of_the_first'][name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
