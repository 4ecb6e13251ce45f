"""Descent of the cost by its gradient through the predictor: alone from several starts, or as a polish after CEM."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_mpc.planners.base import CostFn, Plan
from jepa_mpc.planners.cem import CEM, CEMConfig
from jepa_mpc.planners.costs import LEAST_RANGE
from jepa_mpc.settings import Natural, Positive


@dataclass(frozen=True)
class GradientConfig(CEMConfig):
    """Descent from the elites of one round."""

    num_gradient_steps: Natural = 10
    """Steps of Adam through the predictor."""
    gradient_step: Positive = 0.1
    """Size of the first of them, as a fraction of half the action range; it decays to zero."""


@dataclass(frozen=True)
class CEMGradientConfig(GradientConfig):
    """Descent from what the cross-entropy method finds."""


@GradientConfig.makes("gradient")
class Gradient(CEM):
    """Adam (Kingma & Ba, 2015) from the elites of one round of samples; the best of where they end."""

    config: GradientConfig
    needs_gradient = True

    def plan(self, cost_fn, horizon, generators, warm_start=None, deadline=float("inf")):
        found = super().plan(cost_fn, horizon, generators, warm_start, deadline)
        actions, cost = self.descend(cost_fn, self.starts(found), deadline)
        return replace(found, actions=actions, cost=cost)

    def refit(self, samples, costs):
        starts = self.elites(samples, costs)
        return starts[:, 0], torch.zeros_like(starts[:, 0]), starts, starts[:, 0]

    def starts(self, found: Plan) -> Tensor:
        """Returns candidates (B, K, H, A) to descend from."""
        return found.elites if found.elites.shape[1] else found.actions.unsqueeze(1)

    def descend(self, cost_fn: CostFn, actions: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        """Returns the best place (B, H, A), and its cost (B,), on the ways down from candidates (B, K, H, A).

        Steps are in units of half the action range. Costs of different candidates and episodes do not mix: Adam is
        elementwise and their sum is what is descended.
        """
        config, step_seconds = self.config, 0.0
        x = ((actions - self.middle) / self.half_range.clamp_min(LEAST_RANGE)).requires_grad_(True)
        adam = torch.optim.Adam([x], betas=(0.9, 0.99))
        best, best_cost = actions, torch.full(actions.shape[:2], torch.inf, device=actions.device)
        for index in range(config.num_gradient_steps + 1):
            begin = time.perf_counter()
            if index > 0 and begin + step_seconds > deadline:
                break
            candidates = self.middle + self.half_range * x
            costs = cost_fn(candidates)
            costs = torch.where(torch.isfinite(costs), costs, torch.inf)
            best = torch.where((costs < best_cost)[:, :, None, None], candidates.detach(), best)
            best_cost = torch.minimum(costs.detach(), best_cost)
            if index == config.num_gradient_steps or not costs.requires_grad:
                break
            (gradient,) = torch.autograd.grad(costs[torch.isfinite(costs)].sum(), x)
            x.grad = torch.nan_to_num(gradient)
            adam.param_groups[0]["lr"] = config.gradient_step * (1 - index / config.num_gradient_steps)
            adam.step()
            with torch.no_grad():
                x.clamp_(-1, 1)
            step_seconds = time.perf_counter() - begin
        chosen = best_cost.argmin(1)[:, None, None, None]
        return torch.take_along_dim(best, chosen, dim=1)[:, 0].clamp(self.low, self.high), best_cost.amin(1)


@CEMGradientConfig.makes("cem-gradient")
class CEMGradient(Gradient):
    """CEM finds the valley, a few steps of Adam its floor (cf. Huang et al., 2021, arXiv 2112.07746)."""

    refit = CEM.refit

    def starts(self, found):
        return found.actions.unsqueeze(1)
