"""Perceive → plan → act: model predictive control in latent space, toward a goal given as a picture."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig, config_for
from jepa_mpc.agent.objectives import OBJECTIVES, reachability
from jepa_mpc.devices import has_bfloat16
from jepa_mpc.errors import UserError
from jepa_mpc.planners import REDUCTIONS, Plan, effort, shift
from jepa_mpc.settings import checked
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy, load_latent_policy
from jepa_mpc.world_model.model.jepa import JEPA

BFLOAT16_PAYS = 192  # width of a predictor from which products outweigh conversions (docs/log/speed.md)


def load_proposer(checkpoint: Path, config: AgentConfig, device: str = "cpu") -> LatentPolicy | None:
    """The checkpoint's policy, if the config asks for one."""
    if config.warm_start == "none":
        return None
    return load_latent_policy(checkpoint / f"{config.warm_start}.safetensors", checkpoint, device)[0]


class PlanningAgent:
    """Plans B episodes at once. Every block: encode the new picture, roll candidate plans, act on the best.

    Args:
        model: a trained world model.
        action_space: the environment's; one block is `action_block` such actions.
        action_block: environment steps in a block.
        config: how to plan.
        proposer: what proposes plans to the search, if the config asks for it.
    """

    def __init__(
        self,
        model: JEPA,
        action_space: gym.spaces.Box,
        action_block: int,
        config: AgentConfig,
        proposer: LatentPolicy | None = None,
    ):
        if (numbers := action_block * math.prod(action_space.shape)) != model.config.action_dim:
            raise UserError(f"this model's blocks are {model.config.action_dim} numbers, the task's {numbers}")
        config = checked(config)
        if config.receding_horizon > config.horizon:
            raise UserError(f"receding_horizon must lie in 1–{config.horizon} (horizon), not {config.receding_horizon}")
        self._objective = OBJECTIVES[config.objective]
        longest = config.history_len + config.horizon - 1
        if longest > (limit := model.config.predictor.max_len):
            raise UserError(f"history_len + horizon - 1 is {longest}; this model's predictor sees at most {limit}")
        if self._objective is reachability and model.reachability is None:
            raise UserError("this checkpoint has no reachability metric; use --objective latent or train it again")
        if (config.warm_start != "none") != (proposer is not None):
            raise UserError("warm_start names the policy that proposes; one must be there if, and only if, it does")
        if config.planner.num_iterations == 0 and proposer is None:
            raise UserError("without a search (num_iterations 0), a policy must propose: use --warm-start")
        self.model, self.config, self.action_block, self._proposer = model, config, action_block, proposer
        self._device = model.action_mean.device
        wide = model.config.predictor.width >= BFLOAT16_PAYS
        if config.precision == "bfloat16" or (config.precision == "auto" and wide and has_bfloat16(self._device)):
            model.predictor.bfloat16()
        self._block_shape = (action_block, *action_space.shape)
        low, high = (
            torch.from_numpy(np.tile(bound, action_block)).to(self._device)
            for bound in (action_space.low, action_space.high)
        )
        self._planner = config.planner.make(low, high, action_block)
        self._reduce = REDUCTIONS[config.reduction]
        self.rounds_done: list[int] = []  # by each search so far; fewer than asked for where it met the deadline

    @classmethod
    def load(cls, checkpoint: Path | str, config: AgentConfig | None = None, device: str = "cpu") -> "PlanningAgent":
        """The agent of a checkpoint, for the task that it was trained on, planned the task's own way by default."""
        model, info = load_checkpoint(checkpoint, device=device)
        env, spec = envs.make(info.task), envs.get_task(info.task)
        config = config or config_for(spec)
        proposer = load_proposer(Path(checkpoint), config, device)
        return cls(model, env.action_space, spec.action_block, config, proposer)

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        """Begins B episodes: goal pictures (B, H, W, 3), encoded once, and a seed for each episode's search."""
        with torch.inference_mode(not self._planner.needs_gradient):
            self._z_goal = self.model.encode(self._tensor(goals))[:, None, None]
        self._generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        self._z_history: list[torch.Tensor] = []
        self._past_actions: list[torch.Tensor] = []
        self._plan: Plan | None = None
        self._blocks_done = 0

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The next block (B, block, A) for the pictures (B, H, W, 3) of now."""
        deadline = time.perf_counter() + (self.config.deadline_ms or math.inf) / 1e3
        with torch.inference_mode(not self._planner.needs_gradient):
            z = self.model.encode(self._tensor(pictures))
            self._z_history = [*self._z_history, z][-self.config.history_len :]
            if self._plan is None or self._blocks_done == self.config.receding_horizon:
                self._plan = self._search(deadline)
                self._blocks_done = 0
                self.rounds_done.append(self._plan.num_rounds)
            block = self._plan.actions[:, self._blocks_done]
            self._blocks_done += 1
            self._past_actions = [*self._past_actions, block][-self.config.history_len :]
        return block.reshape(-1, *self._block_shape).cpu().numpy()

    @torch.inference_mode()
    def latent_distance(self, pictures: NDArray[np.uint8], goals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Euclidean distance (...) between the embeddings of pictures and goals (..., H, W, 3), which may broadcast."""
        z, z_goal = self.model.encode(self._tensor(pictures)), self.model.encode(self._tensor(goals))
        return self.model.latent_distance(z, z_goal).cpu().numpy()

    def _search(self, deadline: float) -> Plan:
        z_history = torch.stack(self._z_history, dim=1)
        num_past = z_history.shape[1] - 1
        past_actions = torch.stack(self._past_actions[-num_past:], dim=1) if num_past else None
        planner, config = self._planner, self.config

        def cost(actions: torch.Tensor) -> torch.Tensor:
            future = self.model.rollout(z_history, past_actions, actions)
            toll = effort(actions, planner.middle, planner.half_range)
            distance = self._objective(self.model, future, z_history[:, -1], self._z_goal)
            return self._reduce(distance) + config.effort_weight * toll

        warm_start = None if self._plan is None else shift(self._plan, self._blocks_done, planner.middle)
        if self._proposer is not None:
            warm_start = self._propose(warm_start, z_history, past_actions)
        return planner.plan(cost, config.horizon, self._generators, warm_start, deadline)

    def _propose(self, warm_start: Plan | None, z_history: torch.Tensor, past_actions: torch.Tensor | None) -> Plan:
        """The plan to start from, with the policy's own, in the futures that it leads to, among its elites. Without a
        search the policy's own is the plan, no longer than it is acted on.
        """
        assert self._proposer is not None
        z_goal, z = self._z_goal[:, 0, 0], z_history[:, -1]
        z_before = z_history[:, -2] if z_history.shape[1] > 1 else z
        alone = not self.config.planner.num_iterations
        blocks: list[torch.Tensor] = []
        planner = self._planner
        for _ in range(self.config.receding_horizon if alone else self.config.horizon):
            if blocks:
                future = self.model.rollout(z_history, past_actions, torch.stack(blocks, dim=1).unsqueeze(1))
                z_before, z = z, future[:, 0, -1]
            blocks.append(torch.clamp(self._proposer(z_before, z, z_goal), planner.low, planner.high))
        actions = torch.stack(blocks, dim=1)
        if alone or warm_start is None:
            return Plan(actions, actions.new_full((len(actions),), torch.inf), actions.unsqueeze(1), 0)
        elites = torch.cat([warm_start.elites, actions.unsqueeze(1)], dim=1)
        return Plan(warm_start.actions, warm_start.cost, elites, warm_start.num_rounds)

    def _tensor(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.require(pictures, requirements=["C", "W"])).to(self._device)
