"""Acts by one pass of a policy on embeddings, without a search. Same surface as `PlanningAgent`."""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from world_model.jepa import JEPA
from world_model.latent_policy import LatentPolicy


class LatentPolicyAgent:
    """Every block: encode the new picture, ask the policy for the block that leads to the goal.

    Args:
        model: the world model on whose embeddings the policy was trained.
        policy: what answers.
        action_space: the environment's.
        action_block: environment steps in a block.
    """

    def __init__(self, model: JEPA, policy: LatentPolicy, action_space: gym.spaces.Box, action_block: int):
        self._model, self._policy, self._space, self.action_block = model, policy, action_space, action_block

    @torch.inference_mode()
    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._z_goal = self._model.encode(torch.from_numpy(goals))
        self._z_before: torch.Tensor | None = None

    @torch.inference_mode()
    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        z = self._model.encode(torch.from_numpy(pictures))
        block = self._policy(z if self._z_before is None else self._z_before, z, self._z_goal)
        self._z_before = z
        actions = block.numpy().reshape(len(pictures), self.action_block, -1)
        return np.clip(actions, self._space.low, self._space.high)
