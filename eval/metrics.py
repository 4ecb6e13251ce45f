"""Statistics of success: a rate never stands without its n and its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from eval.rollout import EpisodeRecord


@dataclass(frozen=True)
class SuccessSummary:
    """Success over n episodes. Rates in 0–1; the interval is Wilson's at 95 %."""

    num_episodes: int
    success_rate: float
    success_interval: tuple[float, float]
    median_steps: float | None  # to success, over the episodes that had it


def summarise(records: Sequence[EpisodeRecord]) -> SuccessSummary:
    steps = [record.steps for record in records if record.steps is not None]
    interval = binomtest(len(steps), len(records)).proportion_ci(0.95, method="wilson")
    return SuccessSummary(
        num_episodes=len(records),
        success_rate=len(steps) / len(records),
        success_interval=(float(interval.low), float(interval.high)),
        median_steps=float(np.median(steps)) if steps else None,
    )
