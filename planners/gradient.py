"""Descent of the cost by its gradient through the predictor: alone from several starts, or as a polish after CEM."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_mpc.planners.base import PLANNERS, CostFn, Plan
from jepa_mpc.planners.cem import CEM, CEMConfig
from jepa_mpc.planners.objectives import LEAST_RANGE
from jepa_mpc.settings import Natural, Positive


@dataclass(frozen=True)
class GradientConfig(CEMConfig):
    """Descent from the elites of one round."""

    num_gradient_steps: Natural = 10
    """Steps of Adam through the predictor."""
    gradient_step: Positive = 0.1
    """Size of the first of them, as a fraction of half the action range; it decays to zero."""

    def make(self, low, high, steps_per_block=1):
        return Gradient(self, low, high, steps_per_block)


@dataclass(frozen=True)
class CEMGradientConfig(GradientConfig):
    """Descent from what the cross-entropy method finds."""

    def make(self, low, high, steps_per_block=1):
        return CEMGradient(self, low, high, steps_per_block)


PLANNERS.register("gradient", GradientConfig)
PLANNERS.register("cem-gradient", CEMGradientConfig)


class Gradient(CEM):
    """Adam (Kingma & Ba, 2015) from the elites of one round of samples; the best of where they end."""

    config: GradientConfig
    needs_gradient = True

    def plan(self, cost_fn, horizon, generators, warm_start=None, deadline=float("inf")):
        starts = super().plan(cost_fn, horizon, generators, warm_start, deadline)
        candidates = starts.elites if starts.elites.shape[1] else starts.actions.unsqueeze(1)
        return descend(self, cost_fn, candidates, starts, deadline)

    def refit(self, samples, costs):
        starts = self.elites(samples, costs)
        return starts[:, 0], torch.zeros_like(starts[:, 0]), starts, starts[:, 0]


class CEMGradient(CEM):
    """CEM finds the valley, a few steps of Adam its floor (cf. Huang et al., 2021, arXiv 2112.07746)."""

    config: GradientConfig
    needs_gradient = True

    def plan(self, cost_fn, horizon, generators, warm_start=None, deadline=float("inf")):
        found = super().plan(cost_fn, horizon, generators, warm_start, deadline)
        return descend(self, cost_fn, found.actions.unsqueeze(1), found, deadline)


def descend(planner: Gradient | CEMGradient, cost_fn: CostFn, actions: Tensor, found: Plan, deadline: float) -> Plan:
    """Descends by Adam from candidates (B, K, H, A), in units of half the action range; each keeps its best place.

    Costs of different candidates and episodes do not mix: Adam is elementwise and their sum is what is descended.
    """
    config, step_seconds = planner.config, 0.0
    x = ((actions - planner.middle) / planner.half_range.clamp_min(LEAST_RANGE)).requires_grad_(True)
    adam = torch.optim.Adam([x], betas=(0.9, 0.99))
    best, best_cost = actions, torch.full(actions.shape[:2], torch.inf, device=actions.device)
    for index in range(config.num_gradient_steps + 1):
        begin = time.perf_counter()
        if index > 0 and begin + step_seconds > deadline:
            break
        candidates = planner.middle + planner.half_range * x
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
    chosen = best_cost.argmin(1)
    actions = torch.take_along_dim(best, chosen[:, None, None, None], dim=1)[:, 0].clamp(planner.low, planner.high)
    return replace(found, actions=actions, cost=best_cost.amin(1))
