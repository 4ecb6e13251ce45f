"""What every sampling planner shares: sample → clamp → cost → refit, in rounds. An algorithm overrides what differs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from jepa_mpc.errors import UserError
from jepa_mpc.registry import Registry
from jepa_mpc.settings import Choice, Natural, Positive, Range, checked

# Candidate plans (B, S, H, A) to costs (B, S): all that a planner knows of the world.
CostFn = Callable[[Tensor], Tensor]


PLANNERS: Registry[type["PlannerConfig"]] = Registry("planner")


@dataclass(frozen=True)
class PlannerConfig(Choice):
    """Settings that every search has; stds are fractions of half the action range."""

    choices: ClassVar = PLANNERS
    inline: ClassVar[bool] = True

    num_samples: Annotated[int, Range(1, 10**5)] = 64
    """S: candidate plans in a round."""
    num_iterations: Natural = 3
    """Rounds of sampling and refitting; 0 takes the plan to start from as it is."""
    init_std: Positive = 0.7
    """Std of the first round."""
    warm_std: Positive = 0.2
    """The same where the plan before is searched around."""
    min_std: Positive = 0.01
    """Floor of the std; an episode whose std is there has converged and stops."""

    def make(self, low: Tensor, high: Tensor, steps_per_block: int = 1) -> "Planner":
        """Returns the planner of these settings, for (A,) bounds of a block of so many actions one after another."""
        if self.made is None:
            raise UserError(f"{type(self).__name__} makes no planner; give it make(self, low, high, steps_per_block)")
        return self.made(self, low, high, steps_per_block)


@dataclass(frozen=True)
class Plan:
    """Chosen actions (B, H, A), the cost (B,) of the best candidate seen in the last round, the candidates
    (B, K, H, A) to carry on from (K may be 0), and the rounds that there was time for.
    """

    actions: Tensor
    cost: Tensor
    elites: Tensor
    num_rounds: int


class Planner(ABC):
    """Searches action sequences within bounds; where these are equal, the action stays.

    Args:
        config: settings of the search.
        low, high: (A,) bounds of one block's actions.
        steps_per_block: a block is this many actions one after another; noise is coloured along them.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(self, config: PlannerConfig, low: Tensor, high: Tensor, steps_per_block: int = 1):
        self.config, self.low, self.high, self.steps_per_block = checked(config), low, high, steps_per_block
        self.middle, self.half_range = (low + high) / 2, (high - low) / 2
        self._round_seconds = 0.0  # of the last round, to judge whether another fits before a deadline

    def plan(
        self,
        cost_fn: CostFn,
        horizon: int,
        generators: Sequence[torch.Generator],
        warm_start: Plan | None = None,
        deadline: float = float("inf"),
    ) -> Plan:
        """Plans B episodes at once, each with a generator of its own, so that no episode's plan depends on others.

        It is the same alone, up to how the costs of a larger batch are rounded. Where all costs are infinite, the
        plan's is too, and its actions mean nothing.

        Args:
            cost_fn: (B, S, H, A) to (B, S); a cost that is not finite ranks last.
            horizon: H, blocks to plan.
            generators: B generators, on the bounds' device.
            warm_start: plan to search around; the middle of the bounds unless given.
            deadline: `time.perf_counter()` at which to be done: rounds that do not fit are left out, but for the
                very first of an episode.
        """
        B, A, config = len(generators), len(self.low), self.config
        if warm_start is None:
            mean, std = self.middle.expand(B, horizon, A), config.init_std * self.half_range
            cost, elites = self.middle.new_full((B,), torch.inf), self.middle.new_empty(B, 0, horizon, A)
        else:
            mean, std = warm_start.actions, config.warm_std * self.half_range
            cost, elites = warm_start.cost, warm_start.elites
        std, best = std.expand(B, horizon, A), mean
        converged = torch.zeros(B, 1, 1, dtype=torch.bool, device=mean.device)
        num_rounds = 0
        for index in range(config.num_iterations):
            begin = time.perf_counter()
            has_plan = warm_start is not None or index > 0
            if has_plan and begin + self._round_seconds > deadline:
                break
            noise = self.noise(self.num_samples(index), horizon, generators)
            noise[:, 0] = 0  # the mean itself is a candidate
            samples = torch.clamp(mean.unsqueeze(1) + std.unsqueeze(1) * noise, self.low, self.high)
            samples = torch.cat([samples, elites], dim=1)
            costs = cost_fn(samples)
            costs = torch.where(torch.isfinite(costs), costs, torch.inf)
            new_mean, new_std, elites, new_best = self._refitted(samples, costs)
            new_std = torch.maximum(new_std, config.min_std * self.half_range)
            mean, std = torch.where(converged, mean, new_mean), torch.where(converged, std, new_std)
            best = torch.where(converged, best, new_best)
            cost = torch.where(converged[:, 0, 0], cost, costs.amin(dim=1))
            num_rounds += 1
            converged = (std <= config.min_std * self.half_range).flatten(1).all(1).view(B, 1, 1)
            self._round_seconds = time.perf_counter() - begin
            if converged.all():
                break
        return Plan(torch.clamp(best, self.low, self.high), cost, elites, num_rounds)

    def num_samples(self, index: int) -> int:
        """Returns the number of candidates in round `index`."""
        return self.config.num_samples

    def noise(self, num_samples: int, horizon: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Returns unit noise (B, S, H, A)."""
        shape = (num_samples, horizon, len(self.low))
        return torch.stack([torch.randn(shape, generator=g, device=self.low.device) for g in generators])

    @abstractmethod
    def refit(self, samples: Tensor, costs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns what follows from candidates (B, S, H, A) with costs (B, S), inf for the unusable: a new mean and
        std (B, H, A), the candidates (B, K, H, A) to try again in the next round, and the plan (B, H, A) to act on if
        this is the last.
        """

    def _refitted(self, samples: Tensor, costs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns what `refit` does; raises `UserError` if that is not what it should be."""
        (B, _, H, A), fitted, whose = samples.shape, self.refit(samples, costs), f"{type(self).__name__}.refit"
        if not (isinstance(fitted, tuple) and len(fitted) == 4):
            raise UserError(f"{whose} must return a mean, a std, candidates and a plan, four tensors")
        for name, value in zip(("mean", "std", "candidates", "plan"), fitted, strict=True):
            any_number = getattr(value, "shape", ())[1:2] if name == "candidates" else ()
            require_floats(value, f"{whose} must return its {name}", (B, *any_number, H, A))
        return fitted


def require_floats(value: object, must: str, shape: tuple[int, ...]) -> None:
    """Raises `UserError`, which begins with what somebody's code must return, unless that is floats of this shape."""
    if not (isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape):
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{must}: a float tensor {tuple(shape)}, not {found.removeprefix('torch.')}")


def shift(plan: Plan, num_blocks: int, fill: Tensor) -> Plan:
    """Returns a plan as it stands after its first `num_blocks` are done, filled up with `fill` (A,)."""

    def shifted(actions: Tensor) -> Tensor:
        rest = actions[..., num_blocks:, :]
        missing = actions.shape[-2] - rest.shape[-2]
        return torch.cat([rest, fill.expand(*actions.shape[:-2], missing, -1)], dim=-2)

    return Plan(shifted(plan.actions), plan.cost, shifted(plan.elites), plan.num_rounds)
