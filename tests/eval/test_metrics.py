"""What a table says of episodes, by hand."""

import numpy as np

from jepa_mpc.eval.metrics import summarise, summarise_returns
from jepa_mpc.eval.trial import EpisodeRecord


def record(pair, steps, reward=0.0):
    return EpisodeRecord(
        pair, steps is not None, steps, steps, None, None, final_error=0.1, best_error=0.1, reward=reward
    )


def test_summary_by_hand():
    summary = summarise([record(0, 5), record(1, None), record(2, 9), record(3, 6)], budget=12)
    assert (summary.num_episodes, summary.success_rate, summary.median_steps) == (4, 0.75, 6)
    # Wilson: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    n, p, z = 4, 0.75, 1.959964
    centre, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1)]
    np.testing.assert_allclose(summary.success_interval, expected, rtol=1e-5)
    assert (summary.first_hit.rate, summary.held.rate, summary.within_half_budget.rate) == (0.75, 0, 0.5)
    assert summarise([record(0, None)], budget=12).median_steps is None


def test_returns_by_hand():
    summary = summarise_returns([record(i, None, reward) for i, reward in enumerate((1.0, 2.0, 6.0))])
    assert (summary.num_episodes, summary.mean, summary.minimum, summary.median) == (3, 3.0, 1.0, 2.0)
    half = 4.302653 * np.sqrt(7) / np.sqrt(3)  # Student's t at 97.5 % with 2 degrees of freedom
    np.testing.assert_allclose(summary.interval, [3 - half, 3 + half], rtol=1e-5)
    assert summarise_returns([record(0, None, 5.0)]).interval == (5.0, 5.0)
