"""A decision as a function: from what is remembered and seen to a block of actions, and what is remembered then.

Notable: nothing here keeps anything, draws a random number or looks at a clock; searching is handed in. So an agent
that searches by PyTorch's generators decides by it, and so does one whose decision is a graph in a file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.numbers import Numbers
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.planners import REDUCTIONS, CostFn, Plan, Planner, effort, require_floats, shift
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.model.surprise import Lag, Miss, surprise

# From costs, and a plan to search around if there is one, to a plan.
SearchFn = Callable[[CostFn, Plan | None], Plan]


@dataclass(frozen=True)
class Memory:
    """What is remembered of B episodes: embeddings of the goals (B, G, 1, 1, D), or goals by numbers (B, P); embeddings
    of the last pictures (B, D), the blocks (B, A) begun at those, the blocks (B, A) on their way, what predictions miss
    by (B, D), how far motion lags behind them, how unforeseen the last pictures were (B,), what is left of the plan,
    and how many of its blocks are done.
    """

    z_goal: Tensor
    goal_state: Tensor | None
    z_history: tuple[Tensor, ...]
    past_actions: tuple[Tensor, ...]
    on_their_way: tuple[Tensor, ...]
    offset: Tensor
    lag: Lag
    surprise: Tensor
    plan: Plan | None = None
    blocks_done: int = 0


@dataclass(frozen=True)
class Decision:
    """A block (B, A), in which episodes it is the middle of the bounds because no plan serves (B,), and what is
    remembered now.
    """

    block: Tensor
    lost: Tensor
    memory: Memory


class Controller:
    """Sees and decides for B episodes at once; settings are taken as they are.

    Args:
        model: a trained world model.
        config: how to plan.
        planner: what searches by those settings, and knows the bounds.
        proposer: what proposes plans to the search, if the config asks for it.
        numbers: what reads numbers, where goals are given by them, or limits to keep to.
    """

    def __init__(
        self,
        model: JEPA,
        config: AgentConfig,
        planner: Planner,
        proposer: LatentPolicy | None,
        numbers: Numbers | None = None,
    ):
        self.model, self.config, self.planner = model, config, planner
        self._proposer, self._numbers = proposer, numbers
        self._objective, self._reduce = OBJECTIVES[config.objective], REDUCTIONS[config.reduction]

    def begin(self, z_goal: Tensor, goal_state: Tensor | None = None) -> Memory:
        """Returns what is remembered when episodes begin toward goals' embeddings (B, G, D); of goals by numbers (B, P)
        G is 0.
        """
        middle, offset = self.planner.middle.expand(len(z_goal), -1), z_goal.new_zeros(len(z_goal), z_goal.shape[-1])
        on_their_way = (middle,) * self.config.blocks_ahead  # until the first answer nothing is done
        unknown = offset.new_full((len(offset),), math.nan)
        goals = z_goal[:, :, None, None], goal_state
        return Memory(*goals, (), (), on_their_way, offset, Lag.none(offset), unknown)

    def see(self, memory: Memory, z: Tensor | None) -> Memory:
        """Adds embeddings (B, D) to the history, and learns from what the last prediction missed them by; None: the
        prediction takes their place.

        Notable: a model is a little wrong in the same way again and again, most of all where the arm stands still. The
        mean of late misses, added to what it says, frees planning of that (offset-free MPC: Muske & Badgwell, J.
        Process Control 12, 2002; Pannocchia & Rawlings, AIChE Journal 49, 2003).
        """
        if memory.z_history:
            foreseen = self._foreseen(memory.z_history, memory.past_actions)
            if z is None:
                z = foreseen + memory.offset
                memory = replace(memory, surprise=torch.full_like(memory.surprise, math.nan))
            else:
                memory = self._learn(memory, foreseen, z)
        assert z is not None
        return replace(memory, z_history=(*memory.z_history, z)[-self.config.history_len :])

    def decide(self, memory: Memory, search: SearchFn) -> Decision:
        """Returns the next blocks, by a search where there is no plan or enough of it is done."""
        plan, blocks_done = memory.plan, memory.blocks_done
        if plan is None or blocks_done == self.config.receding_horizon:
            plan, blocks_done = self._search(memory, search), 0
        block, lost = self._safe(plan.actions[:, 0], plan.cost)
        now, *on_their_way = *memory.on_their_way, block
        memory = replace(
            memory,
            past_actions=(*memory.past_actions, now)[-self.config.history_len :],
            on_their_way=tuple(on_their_way),
            plan=shift(plan, 1, self.planner.middle),
            blocks_done=blocks_done + 1,
        )
        return Decision(block, lost, memory)

    def _foreseen(self, z_history: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
        """Returns what the model predicts (B, D) after embeddings (B, D) and the blocks (B, A) from each on."""
        return self.model.predict(torch.stack([*z_history], dim=1), torch.stack([*actions], dim=1))[:, -1]

    def _learn(self, memory: Memory, foreseen: Tensor, z: Tensor) -> Memory:
        """Updates offset, lag and surprise by what the prediction (B, D) missed of the embeddings (B, D) that came."""
        usual, num_frames = self.model.usual_miss, len(memory.z_history)
        before, earlier = memory.z_history[-1], memory.z_history[-2 if num_frames > 1 else -1]
        miss, lag = Miss.of(z, foreseen, before, earlier), memory.lag
        if usual is not None and num_frames > 1:  # before, nobody knows how things moved
            lag = lag.after(Miss.of(z, foreseen + memory.offset, before, earlier), usual.median)
        known = miss.missed.isfinite().all(dim=-1, keepdim=True)  # one that is no number spoils no later one
        learnt = torch.lerp(memory.offset, miss.missed, self.config.offset_rate)
        return replace(
            memory,
            offset=torch.where(known, learnt, memory.offset),
            lag=lag,
            surprise=surprise(usual, miss, lag, num_frames),
        )

    def _safe(self, block: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block (B, A) within bounds, or the middle of them where no plan has a cost (B,) that is a number,
        or the plan is none itself; and where that is (B,).
        """
        block = torch.clamp(block, self.planner.low, self.planner.high)
        lost = ~(torch.isfinite(cost) & torch.isfinite(block).all(1))
        return torch.where(lost[:, None], self.planner.middle, block), lost

    def _search(self, memory: Memory, search: SearchFn) -> Plan:
        planner, config = self.planner, self.config
        seen, past = memory.z_history, memory.past_actions[len(memory.past_actions) - len(memory.z_history) + 1 :]
        for block in memory.on_their_way:
            past = (*past, block)
            seen = (*seen, self._foreseen(seen, past) + memory.offset)[-config.history_len :]
            past = past[len(past) - len(seen) + 1 :]
        z_history = torch.stack(seen, dim=1)
        past_actions = torch.stack(past, dim=1) if past else None

        def cost(actions: Tensor) -> Tensor:
            future = self.model.rollout(z_history, past_actions, actions, memory.offset)
            toll = effort(actions, planner.middle, planner.half_range)
            return self._costs(memory, future, z_history[:, -1]) + config.effort_weight * toll

        warm_start = memory.plan if self._proposer is None else self._propose(memory, z_history, past_actions)
        plan = search(cost, warm_start)
        if plan.num_rounds or memory.plan is None:
            return plan
        return replace(plan, elites=memory.plan.elites)  # without a round, proposals would pile up

    def _costs(self, memory: Memory, future: Tensor, z_now: Tensor) -> Tensor:
        """Returns how far futures (B, S, H, D) are from the goals, and how far beyond limits, as costs (B, S)."""
        numbers, state = self._numbers, memory.goal_state
        if numbers is None or not (numbers.limited or state is not None):
            return self._picture_costs(memory, future, z_now)
        read = numbers.probe(future)
        limited = numbers.weight * numbers.toll(read, numbers.probe(z_now))
        if state is None:
            return self._picture_costs(memory, future, z_now) + limited
        return self._reduce(numbers.distance(read, state)) + limited

    def _picture_costs(self, memory: Memory, future: Tensor, z_now: Tensor) -> Tensor:
        """Returns how far futures (B, S, H, D) are from the goal pictures, as costs (B, S)."""
        costs = torch.stack([self._cost(future, z_now, z_goal) for z_goal in memory.z_goal.unbind(1)])
        return costs.amin(0) if self.config.several_goals == "nearest" else costs.mean(0)

    def _cost(self, future: Tensor, z_now: Tensor, z_goal: Tensor) -> Tensor:
        """Returns how far futures (B, S, H, D) are from a goal (B, 1, 1, D), as costs (B, S)."""
        config = self.config
        distance = self._objective(self.model, future, z_now, z_goal)
        require_floats(distance, f"objective {config.objective} must return distances (B, S, H)", future.shape[:3])
        costs = self._reduce(distance)
        require_floats(costs, f"reduction {config.reduction} must return costs (B, S)", future.shape[:2])
        return costs

    def _propose(self, memory: Memory, z_history: Tensor, past_actions: Tensor | None) -> Plan:
        """Returns the plan to start from, with the policy's own among its elites. Without a search the policy's best is
        the plan, no longer than it is acted on.
        """
        assert self._proposer is not None
        z, z_goals = z_history[:, -1], memory.z_goal[:, :, 0, 0]
        nearest = (z_goals - z[:, None]).norm(dim=-1).argmin(1)
        z_goal = z_goals[torch.arange(len(z)), nearest]
        z_before = z_history[:, -2] if z_history.shape[1] > 1 else z
        alone, warm_start = not self.config.planner.num_iterations, memory.plan
        horizon = self.config.receding_horizon if alone else self.config.horizon
        planner = self.planner

        def within(plans: Tensor) -> Tensor:
            return torch.clamp(plans, planner.low, planner.high)

        def foresee(blocks: Tensor) -> Tensor:
            return self.model.rollout(z_history, past_actions, within(blocks)[:, None], memory.offset)[:, 0, -1]

        plans = within(self._proposer.plans(z_before, z, z_goal, horizon, foresee))
        if alone or warm_start is None:
            known = (z.isfinite() & z_goal.isfinite()).all(1)  # else what is looked up has no meaning
            return Plan(plans[:, 0], plans.new_zeros(len(plans)).masked_fill(~known, torch.inf), plans, 0)
        elites = torch.cat([warm_start.elites, plans], dim=1)
        return Plan(warm_start.actions, warm_start.cost, elites, warm_start.num_rounds)
