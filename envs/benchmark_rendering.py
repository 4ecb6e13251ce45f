"""Frames per second of every task's pictures against the simulator's defaults: `python envs/benchmark_rendering.py`.

Both are timed in turn in one process on one core, and the medians and their ratio are what to quote.
"""

import json
import os
import time
from dataclasses import dataclass

import numpy as np
import tyro

import envs


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure rendering speed, and how far the picture is from the default one."""

    task: str = "reacher"
    """Task in the registry."""
    num_frames: int = 100
    """Frames in a round."""
    num_rounds: int = 5
    """Rounds, of which the median counts."""


def _round(env: envs.PixelEnv, poses: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds a frame, and the frames."""
    frames, seconds = [], 0.0
    for pose in poses:
        env.set_pose(pose)
        begin = time.perf_counter()
        frames.append(env.render())
        seconds += time.perf_counter() - begin
    return seconds / len(poses), np.stack(frames).astype(np.float64)


def benchmark(config: BenchmarkConfig) -> dict[str, float]:
    """Median frames/s of both settings, their ratio round by round, and the mean picture difference (0–255)."""
    fast, default = envs.make(config.task), envs.make(config.task, fast_rendering=False)
    rng = np.random.default_rng(0)
    fast.reset(seed=0), default.reset(seed=0)
    poses = rng.uniform(-2, 2, (config.num_frames, len(fast.qpos)))
    _round(fast, poses[:5]), _round(default, poses[:5])  # the first frames compile shaders
    rounds = [(_round(fast, poses), _round(default, poses)) for _ in range(config.num_rounds)]
    return {
        "fast_frames_per_second": float(np.median([1 / a[0] for a, _ in rounds])),
        "default_frames_per_second": float(np.median([1 / b[0] for _, b in rounds])),
        "ratio": float(np.median([b[0] / a[0] for a, b in rounds])),
        "mean_difference": float(np.abs(rounds[0][0][1] - rounds[0][1][1]).mean()),
    }


def main() -> None:
    config = tyro.cli(BenchmarkConfig)
    if hasattr(os, "sched_setaffinity"):  # software OpenGL would take every core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps({"task": config.task, **benchmark(config)}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
