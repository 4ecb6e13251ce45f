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


@dataclass(frozen=True)
class Search:
    """Where a search of B episodes stands between two rounds: mean and std (B, H, A) of the next candidates, the plan
    (B, H, A) if there is no next round and its cost (B,), candidates (B, K, H, A) to try again, and whose search has
    converged (B, 1, 1).
    """

    mean: Tensor
    std: Tensor
    best: Tensor
    cost: Tensor
    elites: Tensor
    converged: Tensor


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
        search, num_rounds = self.begin(len(generators), horizon, warm_start), 0
        for index in range(self.config.num_iterations):
            begin = time.perf_counter()
            has_plan = warm_start is not None or index > 0
            if has_plan and begin + self._round_seconds > deadline:
                break
            search = self.advance(search, self.noise(self.num_samples(index), horizon, generators), cost_fn)
            num_rounds += 1
            self._round_seconds = time.perf_counter() - begin
            if search.converged.all():
                break
        return self.end(search, num_rounds)

    def begin(self, num_episodes: int, horizon: int, warm_start: Plan | None = None) -> Search:
        """Returns where a search begins: around the middle of the bounds, or around the plan to start from."""
        shape = num_episodes, horizon, len(self.low)
        if warm_start is None:
            mean, std = self.middle.expand(shape), self.config.init_std * self.half_range
            cost, elites = mean.new_full(shape[:1], torch.inf), mean.new_empty(num_episodes, 0, *shape[1:])
        else:
            mean, std = warm_start.actions, self.config.warm_std * self.half_range
            cost, elites = warm_start.cost, warm_start.elites
        converged = torch.zeros(num_episodes, 1, 1, dtype=torch.bool, device=mean.device)
        return Search(mean, std.expand(shape), mean, cost, elites, converged)

    def advance(self, search: Search, noise: Tensor, cost_fn: CostFn) -> Search:
        """Returns where a search stands after one more round, by unit noise (B, S, H, A): a function of these alone,
        which leaves an episode that has converged as it is.
        """
        noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], dim=1)  # the mean itself is a candidate
        samples = torch.clamp(search.mean.unsqueeze(1) + search.std.unsqueeze(1) * noise, self.low, self.high)
        samples = torch.cat([samples, search.elites], dim=1)
        costs = cost_fn(samples)
        costs = torch.where(torch.isfinite(costs), costs, torch.inf)
        mean, std, elites, best = self._refitted(samples, costs)
        least, done = self.config.min_std * self.half_range, search.converged
        mean = torch.where(done, search.mean, mean)
        std = torch.where(done, search.std, torch.maximum(std, least))
        best = torch.where(done, search.best, best)
        cost = torch.where(done[:, 0, 0], search.cost, costs.amin(dim=1))
        if elites.shape == search.elites.shape:  # not so in the first round, after which at the earliest one is done
            elites = torch.where(done[..., None], search.elites, elites)
        return Search(mean, std, best, cost, elites, (std <= least).flatten(1).all(1).view(-1, 1, 1))

    def end(self, search: Search, num_rounds: int) -> Plan:
        """Returns the plan that a search has found in so many rounds."""
        return Plan(torch.clamp(search.best, self.low, self.high), search.cost, search.elites, num_rounds)

    def sizes(self) -> list[int]:
        """Returns how many candidates each round draws."""
        return [self.num_samples(index) for index in range(self.config.num_iterations)]

    def num_samples(self, index: int) -> int:
        """Returns the number of candidates in round `index`."""
        return self.config.num_samples

    def noise(self, num_samples: int, horizon: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Returns unit noise (B, S, H, A)."""
        return self.coloured(self.white(num_samples, horizon, generators))

    def white(self, num_samples: int, horizon: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Returns standard normal numbers (B, S, H, A)."""
        shape = (num_samples, horizon, len(self.low))
        return torch.stack([torch.randn(shape, generator=g, device=self.low.device) for g in generators])

    def coloured(self, white: Tensor) -> Tensor:
        """Returns unit noise (B, S, H, A) made of standard normal numbers (B, S, H, A)."""
        return white

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
