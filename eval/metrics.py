"""Statistics: a rate or a return never stands without its n and its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jepa_mpc.eval.trial import EpisodeRecord


class Rate(NamedTuple):
    """A share of episodes in 0–1 with Wilson's 95 % interval."""

    rate: float
    low: float
    high: float

    def percent(self, digits: int = 1) -> str:
        """Returns rate and interval in percent, without the sign."""
        return f"{100 * self.rate:.{digits}f} [{100 * self.low:.{digits}f}, {100 * self.high:.{digits}f}]"


@dataclass(frozen=True)
class SuccessSummary:
    """Success over n episodes by the protocol's own rule, and what other rules would say of the same episodes."""

    num_episodes: int
    success_rate: float
    success_interval: tuple[float, float]
    median_steps: float | None  # to success, over the episodes that had it
    within_half_budget: Rate
    first_hit: Rate
    held: Rate
    strict: Rate


@dataclass(frozen=True)
class ReturnSummary:
    """Returns over n episodes; Student's 95 % interval of the mean."""

    num_episodes: int
    mean: float
    interval: tuple[float, float]
    minimum: float
    median: float


def rate(hits: int, n: int) -> Rate:
    """Returns the share of n that were hit."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Rate(hits / n, float(interval.low), float(interval.high))


def noticed(records: Sequence[EpisodeRecord]) -> Rate | None:
    """Returns the share of episodes whose median surprise is above 1; None where that of any is unknown."""
    known = [record.surprise for record in records if record.surprise is not None]
    return rate(sum(surprise > 1 for surprise in known), len(known)) if len(known) == len(records) else None


def summarise(records: Sequence[EpisodeRecord], budget: int) -> SuccessSummary:
    """Counts success over episodes of one budget."""
    n = len(records)
    steps = [record.steps for record in records if record.steps is not None]
    success = rate(len(steps), n)
    return SuccessSummary(
        num_episodes=n,
        success_rate=success.rate,
        success_interval=(success.low, success.high),
        median_steps=float(np.median(steps)) if steps else None,
        within_half_budget=rate(sum(step <= budget // 2 for step in steps), n),
        first_hit=rate(sum(record.first_hit is not None for record in records), n),
        held=rate(sum(record.held is not None for record in records), n),
        strict=rate(sum(record.strict is not None for record in records), n),
    )


def summarise_returns(records: Sequence[EpisodeRecord]) -> ReturnSummary:
    """Averages the simulator's own reward over episodes."""
    from scipy.stats import ttest_1samp

    returns = np.array([record.reward for record in records])
    low = high = float(returns[0])
    if len(returns) > 1 and returns.std() > 0:
        low, high = (float(end) for end in ttest_1samp(returns, 0).confidence_interval(0.95))
    mean, least, median = (float(of(returns)) for of in (np.mean, np.min, np.median))
    return ReturnSummary(len(returns), mean, (low, high), least, median)
