"""A decision as a function: from what is remembered and seen to a block of actions, and what is remembered then.

Nothing here keeps anything, draws a random number or looks at a clock. So an agent that searches with PyTorch's
generators decides by it, and so does one whose decision is a graph in a file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.planners import REDUCTIONS, CostFn, Plan, Planner, effort, require_floats, shift
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy
from jepa_mpc.world_model.model.jepa import JEPA

# From costs, and a plan to search around if there is one, to a plan.
SearchFn = Callable[[CostFn, Plan | None], Plan]


@dataclass(frozen=True)
class Memory:
    """What is remembered of B episodes: embeddings of the goals (B, 1, 1, D) and of the last h pictures (B, h, D), the
    blocks done at those (B, h, A), what predictions miss by (B, D), what is left of the plan, and how many of its
    blocks are done.
    """

    z_goal: Tensor
    z_history: Tensor
    past_actions: Tensor
    offset: Tensor
    plan: Plan | None
    blocks_done: int


@dataclass(frozen=True)
class Decision:
    """A block (B, A), in which episodes it is the middle of the bounds because no plan serves (B,), how unforeseen the
    pictures were (B,), and what is remembered now.
    """

    block: Tensor
    lost: Tensor
    surprise: Tensor
    memory: Memory


class Controller:
    """Decides for B episodes at once; settings are taken as they are.

    Args:
        model: a trained world model.
        config: how to plan.
        planner: what searches, by those settings.
        proposer: what proposes plans to the search, if the config asks for it.
    """

    def __init__(self, model: JEPA, config: AgentConfig, planner: Planner, proposer: LatentPolicy | None):
        self.model, self.config, self.planner, self._proposer = model, config, planner, proposer
        self._objective, self._reduce = OBJECTIVES[config.objective], REDUCTIONS[config.reduction]

    @property
    def search_sizes(self) -> list[int]:
        """Returns how many candidates each round of a search draws."""
        return [self.planner.num_samples(index) for index in range(self.config.planner.num_iterations)]

    def begin(self, z_goal: Tensor) -> Memory:
        """Returns what is remembered when episodes begin toward goals' embeddings (B, D)."""
        B, D, A = *z_goal.shape, len(self.planner.low)
        no_frames, no_blocks = z_goal.new_empty(B, 0, D), z_goal.new_empty(B, 0, A)
        return Memory(z_goal[:, None, None], no_frames, no_blocks, torch.zeros_like(z_goal), None, 0)

    def decide(self, memory: Memory, z: Tensor, search: SearchFn) -> Decision:
        """Decides on the embeddings (B, D) of pictures, by a search where the plan before has been acted on."""
        config = self.config
        offset, surprise = self._compare(z, memory)
        z_history = _last(torch.cat([memory.z_history, z.unsqueeze(1)], dim=1), config.history_len)
        past = memory.past_actions
        plan, blocks_done = memory.plan, memory.blocks_done
        if plan is None or blocks_done == config.receding_horizon:
            seen = replace(memory, z_history=z_history, past_actions=_last(past, z_history.shape[1] - 1), offset=offset)
            warm_start = plan if self._proposer is None else self._propose(seen)
            plan, blocks_done = search(self._cost_fn(seen), warm_start), 0
        block, lost = self._safe(plan.actions[:, 0], plan.cost)
        past = _last(torch.cat([past, block.unsqueeze(1)], dim=1), config.history_len)
        rest = shift(plan, 1, self.planner.middle)
        return Decision(block, lost, surprise, Memory(memory.z_goal, z_history, past, offset, rest, blocks_done + 1))

    def _compare(self, z: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Returns what predictions miss by, and the surprise, now that embeddings (B, D) have come.

        Notable: a model is a little wrong in the same way again and again, most of all where the arm stands still. The
        mean of late misses, added to what it says, frees planning of that (offset-free MPC: Muske & Badgwell, J.
        Process Control 12, 2002; Pannocchia & Rawlings, AIChE Journal 49, 2003).
        """
        z_history, offset = memory.z_history, memory.offset
        if not (num_seen := z_history.shape[1]):
            return offset, offset.new_full((len(z),), math.nan)
        foreseen = self.model.predict(z_history, memory.past_actions)[:, -1]
        missed, moved = z - foreseen, foreseen - z_history[:, -1]
        known = missed.isfinite().all(dim=-1, keepdim=True)  # one prediction that is no number spoils no later one
        offset = torch.where(known, torch.lerp(offset, missed, self.config.offset_rate), offset)
        return offset.detach(), self.model.surprise(missed, moved, num_seen).detach()

    def _safe(self, block: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block (B, A) within bounds, or the middle of them where no plan has a cost (B,) that is a number,
        or the plan is none itself; and where that is (B,).
        """
        block = torch.clamp(block, self.planner.low, self.planner.high)
        lost = ~(torch.isfinite(cost) & torch.isfinite(block).all(1))
        return torch.where(lost[:, None], self.planner.middle, block), lost

    def _cost_fn(self, seen: Memory) -> CostFn:
        """Returns what plans cost from the last picture on, of which the blocks before it are known."""
        planner, config = self.planner, self.config

        def cost(actions: Tensor) -> Tensor:
            future = self._rollout(seen, actions)
            toll = effort(actions, planner.middle, planner.half_range)
            distance = self._objective(self.model, future, seen.z_history[:, -1], seen.z_goal)
            require_floats(distance, f"objective {config.objective} must return distances (B, S, H)", future.shape[:3])
            costs = self._reduce(distance)
            require_floats(costs, f"reduction {config.reduction} must return costs (B, S)", future.shape[:2])
            return costs + config.effort_weight * toll

        return cost

    def _rollout(self, seen: Memory, actions: Tensor) -> Tensor:
        past_actions = seen.past_actions if seen.past_actions.shape[1] else None
        return self.model.rollout(seen.z_history, past_actions, actions, seen.offset)

    def _propose(self, seen: Memory) -> Plan:
        """Returns the plan to start from, with the policy's own, in the futures that it leads to, among its elites.
        Without a search the policy's own is the plan, no longer than it is acted on.
        """
        assert self._proposer is not None
        z_goal, z, warm_start = seen.z_goal[:, 0, 0], seen.z_history[:, -1], seen.plan
        z_before = seen.z_history[:, -2] if seen.z_history.shape[1] > 1 else z
        alone = not self.config.planner.num_iterations
        blocks: list[Tensor] = []
        planner = self.planner
        for _ in range(self.config.receding_horizon if alone else self.config.horizon):
            if blocks:
                future = self._rollout(seen, torch.stack(blocks, dim=1).unsqueeze(1))
                z_before, z = z, future[:, 0, -1]
            blocks.append(torch.clamp(self._proposer(z_before, z, z_goal), planner.low, planner.high))
        actions = torch.stack(blocks, dim=1)
        if alone or warm_start is None:
            return Plan(actions, actions.new_zeros(len(actions)), actions.unsqueeze(1), 0)
        elites = torch.cat([warm_start.elites, actions.unsqueeze(1)], dim=1)
        return Plan(warm_start.actions, warm_start.cost, elites, warm_start.num_rounds)


def _last(values: Tensor, count: int) -> Tensor:
    """Returns the last of values (B, T, ...) in time, up to so many."""
    return values[:, max(0, values.shape[1] - count) :].contiguous()
