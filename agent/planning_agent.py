"""Perceive → plan → act: model predictive control in latent space, toward a goal given as a picture."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import envs
from planners import OBJECTIVES, PLANNERS, PlannerConfig, shift
from world_model.checkpoint import load_checkpoint
from world_model.jepa import JEPA


@dataclass(frozen=True)
class AgentConfig:
    """How the agent plans."""

    planner: Literal["cem", "mppi"] = "cem"
    objective: Literal["terminal", "minimum", "mean"] = "minimum"
    """Latent distance to the goal at the horizon's end, at its nearest, or on average."""
    horizon: int = 5
    """Blocks to look ahead."""
    receding_horizon: int = 1
    """Blocks to execute before planning anew."""
    history_len: int = 3
    """Real frames that the predictor sees; more than one shows velocity."""
    search: PlannerConfig = field(default_factory=PlannerConfig)

    def settings(self) -> dict[str, Any]:
        """All settings, flat, for results."""
        flat = asdict(self)
        return {**flat, **flat.pop("search")}


class PlanningAgent:
    """Plans B episodes at once. Every block: encode the new picture, roll candidate plans, act on the best.

    Args:
        model: a trained world model.
        action_space: the environment's; one block is `action_block` such actions.
        action_block: environment steps in a block.
        config: how to plan.
    """

    def __init__(self, model: JEPA, action_space: gym.spaces.Box, action_block: int, config: AgentConfig):
        if config.horizon < 1 or config.history_len < 1:
            raise ValueError("horizon and history_len must be at least 1")
        if not 1 <= config.receding_horizon <= config.horizon:
            raise ValueError(
                f"receding_horizon must lie in 1–{config.horizon} (horizon), not {config.receding_horizon}"
            )
        longest = config.history_len + config.horizon - 1
        if longest > (limit := model.config.predictor.max_len):
            raise ValueError(f"history_len + horizon - 1 is {longest}; this model's predictor sees at most {limit}")
        self.model, self.config = model, config
        self._device = model.action_mean.device
        self._block_shape = (action_block, *action_space.shape)
        low, high = (
            torch.from_numpy(np.tile(bound, action_block)).to(self._device)
            for bound in (action_space.low, action_space.high)
        )
        self._planner = PLANNERS[config.planner](config.search, low, high)
        self._objective = OBJECTIVES[config.objective]

    @classmethod
    def load(cls, checkpoint: Path | str, config: AgentConfig | None = None, device: str = "cpu") -> "PlanningAgent":
        """The agent of a checkpoint, for the task that it was trained on."""
        model, info = load_checkpoint(checkpoint, device=device)
        env = envs.make(info.task)
        return cls(model, env.action_space, envs.get_task(info.task).action_block, config or AgentConfig())

    @torch.inference_mode()
    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        """Begins B episodes: goal pictures (B, H, W, 3), encoded once, and a seed for each episode's search."""
        self._z_goal = self.model.encode(self._tensor(goals))
        self._generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        self._z_history: list[torch.Tensor] = []
        self._past_actions: list[torch.Tensor] = []
        self._plan: torch.Tensor | None = None
        self._blocks_done = 0

    @torch.inference_mode()
    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The next block (B, block, A) for the pictures (B, H, W, 3) of now."""
        self._z_history = [*self._z_history, self.model.encode(self._tensor(pictures))][-self.config.history_len :]
        if self._plan is None or self._blocks_done == self.config.receding_horizon:
            self._replan()
        assert self._plan is not None
        block = self._plan[:, self._blocks_done]
        self._blocks_done += 1
        self._past_actions = [*self._past_actions, block][-self.config.history_len :]
        return block.reshape(-1, *self._block_shape).cpu().numpy()

    @torch.inference_mode()
    def latent_distance(self, pictures: NDArray[np.uint8], goals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Euclidean distance (...) between the embeddings of pictures and goals (..., H, W, 3)."""
        difference = self.model.encode(self._tensor(pictures)) - self.model.encode(self._tensor(goals))
        return difference.norm(dim=-1).cpu().numpy()

    def _replan(self) -> None:
        z_history = torch.stack(self._z_history, dim=1)
        num_past = z_history.shape[1] - 1
        past_actions = torch.stack(self._past_actions[-num_past:], dim=1) if num_past else None

        def cost(actions: torch.Tensor) -> torch.Tensor:
            return self._objective(self.model.rollout(z_history, past_actions, actions), self._z_goal)

        warm_start = None if self._plan is None else shift(self._plan, self._blocks_done, self._planner.middle)
        self._plan = self._planner.plan(cost, self.config.horizon, self._generators, warm_start).actions
        self._blocks_done = 0

    def _tensor(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.require(pictures, requirements=["C", "W"])).to(self._device)
