"""Named streams of random numbers: what is drawn for one purpose never meets what is drawn for another.

So data and tests are apart by construction, and an episode does not depend on how many processes ran it.
"""

import numpy as np


def episode_rng(purpose: str, seed: int, index: int) -> np.random.Generator:
    """Returns the generator of one episode of one purpose."""
    return np.random.default_rng([seed, index, *purpose.encode()])


def search_seed(seed: int, pair: int) -> int:
    """Returns the seed of the search toward one pair's goal."""
    return int(np.random.SeedSequence([seed, pair]).generate_state(1)[0])
