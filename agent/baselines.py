"""Agents without a model, which show what a figure is worth. Same surface as `PlanningAgent`."""

from collections.abc import Sequence
from typing import Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agent.policies import uniform_actions


class Agent(Protocol):
    """What a rollout needs of an agent. Nothing here tells it whether it has succeeded."""

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        """Begins B episodes toward goal pictures (B, H, W, 3)."""

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The next block (B, block, A) for pictures (B, H, W, 3)."""


class RandomAgent:
    """Uniform actions, as in data collection."""

    def __init__(self, action_space: gym.spaces.Box, action_block: int):
        self._space, self._block = action_space, action_block

    def reset(self, goals, seeds):
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, pictures):
        return np.stack([uniform_actions(self._space, self._block, rng) for rng in self._rngs])


class DoNothingAgent:
    """Zero actions."""

    def __init__(self, action_space: gym.spaces.Box, action_block: int):
        self._block_shape = (action_block, *action_space.shape)

    def reset(self, goals, seeds):
        pass

    def act(self, pictures):
        return np.zeros((len(pictures), *self._block_shape), np.float32)
