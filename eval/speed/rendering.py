"""Frames per second of tasks' pictures against the simulators' defaults.

Both are timed in turn in one process on one core, and the medians and their ratio are what to quote.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed rendering")

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.cli import parse
from jepa_mpc.eval.speed.harness import Results, in_turn, measurement, show
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
    """Returns frames a second, and the frames."""
    frames, seconds = [], 0.0
    for state in states:
        env.set_state(state)
        begin = time.perf_counter()
        frames.append(env.render())
        seconds += time.perf_counter() - begin
    return len(states) / seconds, np.stack(frames).astype(np.float64)


def compare(task: str, num_frames: int, num_rounds: int) -> dict[str, float]:
    """Returns median frames/s both ways, their ratio round by round, and the mean difference of pictures (0–255)."""
    with closing(envs.make(task)) as fast, closing(envs.make(task, fast_rendering=False)) as default:
        default.reset(seed=0)
        states = _visit(fast, num_frames)
        _round(fast, states[:5]), _round(default, states[:5])  # the first frames compile shaders
        ways = {"fast": partial(_round, fast, states), "default": partial(_round, default, states)}
        found = in_turn(ways, num_rounds)
    (a, pictures), (b, others) = (zip(*rounds, strict=True) for rounds in found.values())
    return {
        "fast_frames_per_second": float(np.median(a)),
        "default_frames_per_second": float(np.median(b)),
        "ratio": float(np.median(np.divide(a, b))),
        "mean_difference": float(np.abs(pictures[0] - others[0]).mean()),
    }


@measurement
def measure(config: RenderingSpeedConfig) -> Results:
    """Returns what `compare` does, task by task."""
    tasks = envs.task_names() if config.tasks == ("all",) else [envs.get_task(name).name for name in config.tasks]
    return {"tasks": {task: compare(task, config.num_frames, config.num_rounds) for task in tqdm(tasks, leave=False)}}


def main(args: Sequence[str]) -> None:
    config = parse(RenderingSpeedConfig, args)
    if hasattr(os, "sched_setaffinity"):  # software OpenGL would take every core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    columns = ("frames/s", "default", "ratio", "difference of 255")
    rows = measure(config)["tasks"]
    show({task: dict(zip(columns, row.values(), strict=True)) for task, row in rows.items()})
