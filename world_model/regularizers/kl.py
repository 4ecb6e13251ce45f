"""Embeddings are drawn, and what they are drawn from is held near N(0, I) (a variational encoder, arXiv 1312.6114)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_mpc.distributed import num_ranks, rank
from jepa_mpc.settings import NonNegative
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Latents, Regularizer, RegularizerConfig


@dataclass(frozen=True)
class KLConfig(RegularizerConfig):
    """A variational encoder, arXiv 1312.6114, without its decoder."""

    weight: NonNegative = 1.0
    """β; 1 is the evidence lower bound with unit variance around a prediction."""

    def make(self, model: JEPA) -> Regularizer:
        return KL(self, model)


REGULARIZERS.register("kl", KLConfig)


class KL(Regularizer):
    """Embeddings are drawn from a Gaussian that the encoder names, and each Gaussian is held near N(0, I)."""

    def __init__(self, config: KLConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"kl": config.weight}
        self.log_var = nn.Linear(model.config.embed_dim, model.config.embed_dim)

    def embed(self, model, pixels, generator):
        mean = model.encode(pixels)
        everyones = torch.randn(num_ranks(), *mean.shape, generator=generator, device=mean.device)
        noise = everyones[rank()]
        z = mean + (0.5 * self.log_var(mean).float()).exp() * noise
        return Latents(mean, z, z)

    def forward(self, latents, predicted, actions, generator):
        return {"kl": kl_to_standard_normal(latents.mean, self.log_var(latents.mean).float())}


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Returns twice the divergence of N(mean, exp(log_var)) from N(0, 1), on average over all dimensions.

    Twice, because the squared error beside it is twice the Gaussian's negative log-likelihood.
    """
    return (mean.square() + log_var.exp() - 1 - log_var).mean()
