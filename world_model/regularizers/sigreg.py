"""SIGReg, the sketched isotropic Gaussian regulariser that keeps a JEPA from collapsing.

By Cramér–Wold, embeddings are N(0, I) exactly when all their one-dimensional projections are N(0, 1). SIGReg
projects on random unit directions and on each measures the Epps–Pulley statistic: the weighted squared distance
between the empirical characteristic function and that of N(0, 1). Source: LeJEPA, arXiv 2511.08544, and
LeWorldModel, arXiv 2603.19312, section 3. Where several processes train, their characteristic functions are averaged
before they are compared, and all project on the same directions, so that N is the whole batch's.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.distributed import mean_over_ranks, num_ranks
from jepa_mpc.settings import Count, NonNegative, Range
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import InverseModel, Regularizer, RegularizerConfig


class SIGReg(nn.Module):
    """Epps–Pulley statistic over random projections, averaged over directions and leading dimensions.

    Args:
        num_proj: random unit directions, drawn anew at every call.
        knots: trapezoid knots on t ∈ [0, t_max]; the integrand is even, so half the line suffices.
        t_max: end of the integral, where the weight exp(−t²/2) has all but vanished.
    """

    nodes: Tensor
    target: Tensor
    weights: Tensor

    def __init__(self, num_proj: int = 256, knots: int = 17, t_max: float = 3.0):
        super().__init__()
        self.num_proj = num_proj
        t = torch.linspace(0, t_max, knots, dtype=torch.float64)
        trapezoid = torch.full_like(t, 2 * t_max / (knots - 1))  # 2: both halves of the line
        trapezoid[[0, -1]] /= 2
        gauss = torch.exp(-(t**2) / 2)  # the characteristic function of N(0, 1), and the weight
        self.register_buffer("nodes", t.float(), persistent=False)
        self.register_buffer("target", gauss.float(), persistent=False)
        self.register_buffer("weights", (trapezoid * gauss).float(), persistent=False)

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns a scalar of z (..., N, D): N embeddings per group, each group compared with N(0, I) on its own.

        The statistic carries the factor N, so that its level under the null hypothesis does not depend on N;
        the loss weight is thereby tied to the batch size.
        """
        directions = torch.randn(z.shape[-1], self.num_proj, generator=generator, device=z.device)
        directions = directions / directions.norm(dim=0)
        with torch.autocast(z.device.type, enabled=False):  # half-precision phases would blur the statistic
            return self.statistic(z.float() @ directions).mean()

    def statistic(self, x: Tensor) -> Tensor:
        """Returns the Epps–Pulley statistic (..., M) of projections x (..., N, M)."""
        phase = x.unsqueeze(-1) * self.nodes  # (..., N, M, K)
        real, imaginary, count = phase.cos().mean(-3), phase.sin().mean(-3), x.shape[-2]
        if self.training:
            real, imaginary = mean_over_ranks(torch.stack([real, imaginary]))
            count *= num_ranks()
        distance = (real - self.target).square() + imaginary.square()
        return count * (distance @ self.weights)


@dataclass(frozen=True)
class SIGRegConfig(RegularizerConfig):
    """LeJEPA, arXiv 2511.08544; LeWorldModel, arXiv 2603.19312."""

    weight: NonNegative = 0.2
    """λ; tied to the batch size."""
    num_proj: Count = 256
    """Random directions."""
    knots: Annotated[int, Range(2, 10**6)] = 17
    """Trapezoid knots."""
    inverse_weight: NonNegative = 0.0
    """Of telling the actions from the embeddings before and after them, as PLDM does; 0: LeWorldModel's loss. It keeps
    what actions move where other things, such as a block at rest, are easier to predict."""


@SIGRegConfig.makes("sigreg")
class SIGRegRegularizer(Regularizer):
    """Embeddings of each time step are distributed as N(0, I) over the batch."""

    def __init__(self, config: SIGRegConfig, model: JEPA):
        super().__init__(config, model)
        self.sigreg = SIGReg(config.num_proj, config.knots)
        if config.inverse_weight:
            self.inverse = InverseModel(model)

    def forward(self, latents, predicted, actions, generator):
        penalties = {"sigreg": self.sigreg(latents.z.transpose(0, 1), generator)}
        if self.config.inverse_weight:
            penalties["inverse"] = self.inverse(latents.z, actions)
        return penalties
