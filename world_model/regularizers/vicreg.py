"""Every dimension varies and no two vary together (VICReg, arXiv 2105.04906)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from jepa_mpc.settings import NonNegative
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Regularizer, RegularizerConfig


@dataclass(frozen=True)
class VICRegConfig(RegularizerConfig):
    """arXiv 2105.04906: 25, 25 and 1 on invariance, variance and covariance."""

    variance_weight: NonNegative = 1.0
    covariance_weight: NonNegative = 1 / 25

    def make(self, model: JEPA) -> Regularizer:
        return VICReg(self, model)


REGULARIZERS.register("vicreg", VICRegConfig)


class VICReg(Regularizer):
    """Every dimension varies over the batch, and no two vary together."""

    compares_samples = True

    def __init__(self, config: VICRegConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"variance": config.variance_weight, "covariance": config.covariance_weight}

    def forward(self, latents, predicted, actions, generator):
        z = latents.z.flatten(0, 1)
        return {"variance": variance_hinge(z), "covariance": covariance(z)}


def variance_hinge(z: Tensor) -> Tensor:
    """Measures how far the std of each dimension of z (..., N, D) falls short of 1, on average (equation 1)."""
    return F.relu(1 - (z.var(dim=-2) + 1e-4).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """Sums squared covariances of z (..., N, D) off the diagonal, and divides by D (equation 4)."""
    centred = z - z.mean(dim=-2, keepdim=True)
    matrix = centred.transpose(-1, -2) @ centred / (z.shape[-2] - 1)
    squares = matrix.square()
    return ((squares.sum((-1, -2)) - squares.diagonal(dim1=-2, dim2=-1).sum(-1)) / z.shape[-1]).mean()
