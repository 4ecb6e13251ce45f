"""What planning can reach at most: the same search with the simulator as its model and the pose as its distance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig, planning_of
from jepa_mpc.agent.rivals import NOTHING, Rival
from jepa_mpc.envs.blocks import as_actions, block_bounds, run_block
from jepa_mpc.planners import REDUCTIONS, Plan, effort, shift


class OracleAgent:
    """Plans B episodes at once in the simulator. The cost is the error of the pose, in units of the task's tolerance,
    at the blocks' ends, reduced over the horizon as the planner's own agent does.

    Args:
        task: a task in the registry.
        config: how to plan; its objective and history are of no account.
    """

    def __init__(self, task: str, config: AgentConfig):
        self._spec, self._env, self._config = envs.get_task(task), envs.make(task), config
        self.action_block, space = self._spec.action_block, self._env.action_space
        low, high = map(torch.from_numpy, block_bounds(space.low, space.high, self.action_block))
        self._planner = config.planner.make(low, high, self.action_block)

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._plan: Plan | None = None
        self._goal_poses: list[NDArray[np.float64]] = []

    def look(self, states: NDArray[np.float64], goal_states: NDArray[np.float64]) -> None:
        self._states = states
        if not self._goal_poses:
            for state in goal_states:
                self._env.set_state(state)
                self._goal_poses.append(self._env.qpos)

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        planner, config = self._planner, self._config

        def cost(actions: torch.Tensor) -> torch.Tensor:
            toll = effort(actions, planner.middle, planner.half_range)
            return REDUCTIONS[config.reduction](self._distances(actions.numpy())) + config.effort_weight * toll

        warm_start = None if self._plan is None else shift(self._plan, 1, planner.middle)
        self._plan = planner.plan(cost, config.horizon, self._generators, warm_start)
        return as_actions(self._plan.actions[:, 0].numpy(), self.action_block)

    def _distances(self, actions: NDArray[np.float32]) -> torch.Tensor:
        """Returns errors (B, S, H) at the ends of blocks (B, S, H, block × A), which are tried one by one."""
        env, pose = self._env, self._spec.pose
        errors = np.empty(actions.shape[:3], np.float32)
        for i, (state, goal) in enumerate(zip(self._states, self._goal_poses, strict=True)):
            for j, plan in enumerate(actions[i]):
                env.set_state(state)
                for h, block in enumerate(as_actions(plan, self.action_block)):
                    run_block(env, block)
                    errors[i, j, h] = pose.error(env.qpos, goal) / pose.tolerance
        return torch.from_numpy(errors)


def _planning(task: str) -> AgentConfig:
    """Returns how the task is planned, but for what makes up for a model's misses."""
    return replace(planning_of(task), offset_rate=0.0)


ORACLE = Rival(
    "the simulator and the goal's state",
    lambda task, seed: (OracleAgent(task, _planning(task)), NOTHING),
    planner=_planning,
    label="planning with the simulator",
)
