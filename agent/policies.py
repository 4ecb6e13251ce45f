"""Policies that act without a goal, to collect data and to stand beside the planner as baselines."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

# A policy maps the picture (H, W, 3) that begins a block to the block's actions (block, A).
Policy = Callable[[NDArray[np.uint8] | None], NDArray[np.float32]]


def uniform(space: gym.spaces.Box, block: int, rng: np.random.Generator) -> Policy:
    """Independent uniform actions over the whole action space."""
    return lambda picture: rng.uniform(space.low, space.high, (block, *space.shape)).astype(np.float32)


POLICIES: dict[str, Callable[[gym.spaces.Box, int, np.random.Generator], Policy]] = {"uniform": uniform}
