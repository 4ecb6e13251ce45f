"""What every sampling planner shares: sample → clamp → cost → refit. An algorithm overrides the refit alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Candidate plans (B, S, H, A) to costs (B, S): all that a planner knows of the world.
CostFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PlannerConfig:
    """Settings of the search; stds are fractions of half the action range."""

    num_samples: int = 64
    """S: candidate plans in an iteration."""
    num_iterations: int = 3
    """Rounds of sampling and refitting."""
    num_elites: int = 8
    """CEM: the best candidates, to which the next distribution is fitted."""
    init_std: float = 0.7
    """Std of the first round."""
    min_std: float = 0.05
    """Floor of the std in later rounds."""
    temperature: float = 0.1
    """MPPI: divides the costs, after they are scaled to unit std over the samples."""


@dataclass(frozen=True)
class Plan:
    """Chosen actions (B, H, A), and the cost (B,) of the best candidate of the last round."""

    actions: Tensor
    cost: Tensor


class Planner(ABC):
    """A search over action sequences within bounds.

    Args:
        config: settings of the search.
        low, high: (A,) bounds of one block's actions.
    """

    def __init__(self, config: PlannerConfig, low: Tensor, high: Tensor):
        if not 1 <= config.num_elites <= config.num_samples:
            raise ValueError(f"num_elites must lie in 1–{config.num_samples} (num_samples), not {config.num_elites}")
        if config.num_iterations < 1:
            raise ValueError(f"num_iterations must be at least 1, not {config.num_iterations}")
        for name in ("init_std", "min_std", "temperature"):
            if not (value := getattr(config, name)) > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        self.config, self.low, self.high = config, low, high
        self.middle, self.half_range = (low + high) / 2, (high - low) / 2

    def plan(
        self,
        cost_fn: CostFn,
        horizon: int,
        generators: Sequence[torch.Generator],
        warm_start: Tensor | None = None,
    ) -> Plan:
        """Plans B episodes at once, each with a generator of its own, so that no episode's noise depends on others.

        Args:
            cost_fn: (B, S, H, A) to (B, S); a cost that is not finite ranks last.
            horizon: H, blocks to plan.
            generators: B generators, on the bounds' device.
            warm_start: (B, H, A) plan to search around; the middle of the bounds unless given.
        """
        B, S, A = len(generators), self.config.num_samples, len(self.low)
        mean = self.middle.expand(B, horizon, A) if warm_start is None else warm_start
        std = (self.config.init_std * self.half_range).expand(B, horizon, A)
        for _ in range(self.config.num_iterations):
            noise = torch.stack([torch.randn(S, horizon, A, generator=g, device=self.low.device) for g in generators])
            noise[:, 0] = 0  # the mean itself is a candidate
            samples = torch.clamp(mean.unsqueeze(1) + std.unsqueeze(1) * noise, self.low, self.high)
            costs = cost_fn(samples)
            costs = torch.where(torch.isfinite(costs), costs, torch.inf)
            mean, std = self.refit(samples, costs)
            std = torch.maximum(std, self.config.min_std * self.half_range)
        return Plan(mean, costs.amin(dim=1))

    @abstractmethod
    def refit(self, samples: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates (B, S, H, A) with costs (B, S), inf for the unusable, to a new mean and std (B, H, A)."""


def shift(actions: Tensor, num_blocks: int, fill: Tensor) -> Tensor:
    """A plan (B, H, A) as it stands after its first `num_blocks` are done, filled up with `fill` (A,)."""
    rest = actions[:, num_blocks:]
    return torch.cat([rest, fill.expand(len(actions), actions.shape[1] - rest.shape[1], -1)], dim=1)
