"""Frames per second of tasks' pictures against the simulators' defaults.

Both are timed in turn in one process on one core, and the medians and their ratio are what to quote.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed rendering")

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rich
from numpy.typing import NDArray
from rich.table import Table
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.cli import parse
from jepa_mpc.eval.speed.rounds import Results, measurement
from jepa_mpc.settings import Count


@dataclass(frozen=True)
class RenderingSpeedConfig:
    """Measure rendering speed, and how far the picture is from the default one."""

    tasks: tuple[str, ...] = ("all",)
    """Names of tasks, or all that have settings of their own."""
    num_frames: Count = 100
    """Frames in a round."""
    num_rounds: Count = 5
    """Rounds, of which the median counts."""
    output: Path | None = None
    """JSON file to write beside the printed table."""


def _visit(env: envs.PixelEnv, num_states: int) -> list[NDArray[np.float64]]:
    """Returns states on the way of random actions from a few resets."""
    rng, states = np.random.default_rng(0), []
    for index in range(num_states):
        if index % 20 == 0:
            env.reset(seed=index)
        for _ in range(5):
            env.advance(rng.uniform(env.action_space.low, env.action_space.high))
        states.append(env.get_state())
    return states


def _round(env: envs.PixelEnv, states: list[NDArray[np.float64]]) -> tuple[float, NDArray[np.float64]]:
    """Returns seconds a frame, and the frames."""
    frames, seconds = [], 0.0
    for state in states:
        env.set_state(state)
        begin = time.perf_counter()
        frames.append(env.render())
        seconds += time.perf_counter() - begin
    return seconds / len(states), np.stack(frames).astype(np.float64)


def compare(task: str, num_frames: int, num_rounds: int) -> dict[str, float]:
    """Returns median frames/s both ways, their ratio round by round, and the mean difference of pictures (0–255)."""
    fast, default = envs.make(task), envs.make(task, fast_rendering=False)
    default.reset(seed=0)
    states = _visit(fast, num_frames)
    _round(fast, states[:5]), _round(default, states[:5])  # the first frames compile shaders
    rounds = [(_round(fast, states), _round(default, states)) for _ in range(num_rounds)]
    fast.close()
    default.close()
    return {
        "fast_frames_per_second": float(np.median([1 / a[0] for a, _ in rounds])),
        "default_frames_per_second": float(np.median([1 / b[0] for _, b in rounds])),
        "ratio": float(np.median([b[0] / a[0] for a, b in rounds])),
        "mean_difference": float(np.abs(rounds[0][0][1] - rounds[0][1][1]).mean()),
    }


@measurement
def measure(config: RenderingSpeedConfig) -> Results:
    """Returns what `compare` does, by task."""
    tasks = envs.task_names() if config.tasks == ("all",) else [envs.get_task(name).name for name in config.tasks]
    return {task: compare(task, config.num_frames, config.num_rounds) for task in tqdm(tasks, leave=False)}


def main(args: Sequence[str]) -> None:
    config = parse(RenderingSpeedConfig, args)
    if hasattr(os, "sched_setaffinity"):  # software OpenGL would take every core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = Table("task", "frames/s", "default", "ratio", "difference of 255", box=None)
    for task, row in measure(config).items():
        if "ratio" in row:
            fast, default, ratio, difference = row.values()
            table.add_row(task, f"{fast:.0f}", f"{default:.0f}", f"{ratio:.1f}", f"{difference:.2f}")
    rich.print(table)
