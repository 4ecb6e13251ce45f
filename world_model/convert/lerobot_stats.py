"""Statistics of a data set's columns, as LeRobot keeps them: of every episode, and of all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)

Stats = dict[str, dict[str, list[Any]]]  # by column, and by name: min, max, mean, std, q01 … q99, count


def episode_stats(columns: Mapping[str, NDArray[np.floating]], shown: Mapping[str, NDArray[np.uint8]]) -> Stats:
    """Returns statistics of an episode's columns (T, W), and of some of its pictures (S, H, W, 3), a channel."""
    stats = {name: _stats(values.astype(float), len(values)) for name, values in columns.items()}
    for key, pictures in shown.items():
        channels = _stats(pictures.reshape(-1, 3) / 255, len(pictures))
        count = channels.pop("count")
        stats[key] = {name: [[[each]] for each in value] for name, value in channels.items()} | {"count": count}
    return stats


def pooled(stats: Sequence[Stats]) -> Stats:
    """Returns statistics of all episodes; quantiles are means of theirs, as LeRobot has it."""
    whole = {}
    for key in stats[0]:
        parts = {name: np.array([each[key][name] for each in stats], float) for name in stats[0][key]}
        counts = parts.pop("count")[:, 0]
        weights = (counts / counts.sum()).reshape(-1, *(1,) * (parts["mean"].ndim - 1))
        found = {name: (weights * part).sum(0) for name, part in parts.items()}
        found |= {"min": parts["min"].min(0), "max": parts["max"].max(0)}
        found["std"] = np.sqrt((weights * (parts["std"] ** 2 + (parts["mean"] - found["mean"]) ** 2)).sum(0))
        whole[key] = {name: each.tolist() for name, each in found.items()} | {"count": [int(counts.sum())]}
    return whole


def _stats(values: NDArray[np.floating], count: int) -> dict[str, list[Any]]:
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    found |= {f"q{round(100 * q):02d}": np.quantile(values, q, axis=0) for q in QUANTILES}
    return {name: each.tolist() for name, each in found.items()} | {"count": [count]}
