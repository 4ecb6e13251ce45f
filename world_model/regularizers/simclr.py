"""Predictions are told from the other frames of their batch (SimCLR, arXiv 2002.05709)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_mpc.settings import NonNegative, Positive
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Regularizer, RegularizerConfig


@dataclass(frozen=True)
class SimCLRConfig(RegularizerConfig):
    """arXiv 2002.05709; the temperature of its ImageNet runs."""

    spherical: ClassVar[bool] = True
    weight: NonNegative = 1.0
    temperature: Positive = 0.1
    """Divides cosine similarities."""

    def make(self, model: JEPA) -> Regularizer:
        return SimCLR(self, model)


REGULARIZERS.register("simclr", SimCLRConfig)


class SimCLR(Regularizer):
    """A prediction and its target are nearer to each other than to all other frames of the batch."""

    compares_samples = True

    def __init__(self, config: SimCLRConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"contrast": config.weight}

    def forward(self, latents, predicted, actions, generator):
        pairs = predicted.flatten(0, 1), latents.target[:, 1:].flatten(0, 1)
        return {"contrast": nt_xent(*pairs, self.config.temperature)}


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Returns the cross-entropy of picking its partner for each of a and b (N, D), among all others (equation 1)."""
    both = F.normalize(torch.cat([a, b]).float(), dim=1)
    logits = (both @ both.T / temperature).fill_diagonal_(-math.inf)
    n = len(a)
    partner = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(logits, partner)
