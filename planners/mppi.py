"""Model predictive path integral control (Williams et al., 2017): weigh all candidates by exp(−cost)."""

from dataclasses import dataclass

import torch

from jepa_mpc.planners.base import Planner, PlannerConfig
from jepa_mpc.settings import Positive


@dataclass(frozen=True)
class MPPIConfig(PlannerConfig):
    """Model predictive path integral control."""

    temperature: Positive = 0.1
    """Divides the costs, after they are scaled to unit std over the samples."""


@MPPIConfig.makes("mppi")
class MPPI(Planner):
    config: MPPIConfig

    def refit(self, samples, costs):
        usable = torch.isfinite(costs)
        count = usable.sum(1, keepdim=True).clamp_min(1)
        finite = torch.where(usable, costs, 0)
        # Squares of large costs would overflow; a power of two changes no digit.
        finite = finite * torch.where(finite.abs().amax(1, keepdim=True) > 1e15, 2.0**-78, 1.0)
        centred = torch.where(usable, finite - finite.sum(1, keepdim=True) / count, 0)
        scale = (centred.square().sum(1, keepdim=True) / count).sqrt().clamp_min(1e-12)
        # With costs in units of their own std, one temperature serves objectives of any scale.
        logits = torch.where(usable, -centred / scale / self.config.temperature, -1e30)
        weights = torch.softmax(logits, dim=1)[:, :, None, None]
        mean = (weights * samples).sum(1)
        std = (weights * (samples - mean.unsqueeze(1)).square()).sum(1).sqrt()
        return mean, std, samples[:, :0], mean
