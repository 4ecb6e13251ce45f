"""SIGReg, the sketched isotropic Gaussian regulariser that keeps a JEPA from collapsing.

By Cramér–Wold, embeddings are N(0, I) exactly when all their one-dimensional projections are N(0, 1). SIGReg
projects on random unit directions and on each measures the Epps–Pulley statistic: the weighted squared distance
between the empirical characteristic function and that of N(0, 1). Source: LeJEPA, arXiv 2511.08544, and
LeWorldModel, arXiv 2603.19312, section 3. Where several processes train, their characteristic functions are averaged
before they are compared, and all project on the same directions, so that N is the whole batch's.
"""

import torch
from torch import Tensor, nn

from jepa_mpc.distributed import mean_over_ranks, num_ranks


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
        """z (..., N, D): N embeddings per group, each group compared with N(0, I) on its own. Returns a scalar.

        The statistic carries the factor N, so that its level under the null hypothesis does not depend on N;
        the loss weight is thereby tied to the batch size.
        """
        directions = torch.randn(z.shape[-1], self.num_proj, generator=generator, device=z.device)
        directions = directions / directions.norm(dim=0)
        with torch.autocast(z.device.type, enabled=False):  # half-precision phases would blur the statistic
            return self.statistic(z.float() @ directions).mean()

    def statistic(self, x: Tensor) -> Tensor:
        """Epps–Pulley statistic (..., M) of projections x (..., N, M)."""
        phase = x.unsqueeze(-1) * self.nodes  # (..., N, M, K)
        real, imaginary, count = phase.cos().mean(-3), phase.sin().mean(-3), x.shape[-2]
        if self.training:
            real, imaginary = mean_over_ranks(torch.stack([real, imaginary]))
            count *= num_ranks()
        distance = (real - self.target).square() + imaginary.square()
        return count * (distance @ self.weights)
