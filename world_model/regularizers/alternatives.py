"""What has been tried instead of SIGReg, each remedy in a few lines: settings, with their source, and what they do."""

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.distributed import num_ranks, rank
from jepa_mpc.settings import Count, Fraction, NonNegative, Positive
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import InverseModel, Latents, Regularizer, RegularizerConfig


@dataclass(frozen=True)
class EMAConfig(RegularizerConfig):
    """BYOL, arXiv 2006.07733. Its rate decays to zero over training; here it is constant."""

    spherical: ClassVar[bool] = True
    rate: Fraction = 0.004
    """How fast the target encoder follows the encoder, per step: one less the momentum, 0.996."""


@EMAConfig.makes("ema")
class EMA(Regularizer):
    """Targets come from a slow copy of the encoder, and no gradient flows into them."""

    def __init__(self, config: Any, model: JEPA):
        super().__init__(config, model)
        self.encoder = copy.deepcopy(model.encoder).requires_grad_(False)
        self.projector = copy.deepcopy(model.projector).requires_grad_(False)

    def embed(self, model, seen, generator):
        z = model.encode(seen)
        with torch.no_grad():
            target = model.encode(seen, self.encoder, self.projector)
        return Latents(z, z, target)

    @torch.no_grad()
    def follow(self, model):
        fast = [*model.encoder.parameters(), *model.projector.parameters()]
        for slow_weight, weight in zip(self.parameters(), fast, strict=True):
            slow_weight.lerp_(weight, self.config.rate)


@dataclass(frozen=True)
class VICRegConfig(RegularizerConfig):
    """arXiv 2105.04906: 25, 25 and 1 on invariance, variance and covariance."""

    variance_weight: NonNegative = 1.0
    covariance_weight: NonNegative = 1 / 25


@VICRegConfig.makes("vicreg")
class VICReg(Regularizer):
    """Every dimension varies over the batch, and no two vary together."""

    compares_samples = True

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


@dataclass(frozen=True)
class SimCLRConfig(RegularizerConfig):
    """arXiv 2002.05709; the temperature of its ImageNet runs."""

    spherical: ClassVar[bool] = True
    weight: NonNegative = 1.0
    temperature: Positive = 0.1
    """Divides cosine similarities."""


@SimCLRConfig.makes("simclr")
class SimCLR(Regularizer):
    """A prediction and its target are nearer to each other than to all other frames of the batch."""

    compares_samples = True

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


@dataclass(frozen=True)
class MoCoConfig(RegularizerConfig):
    """Momentum contrast, arXiv 1911.05722; its queue holds 65,536 keys for batches of 256."""

    spherical: ClassVar[bool] = True
    weight: NonNegative = 1.0
    temperature: Positive = 0.07
    """Divides cosine similarities."""
    rate: Fraction = 0.001
    """How fast the slow copy of the encoder follows it, per step."""
    queue_size: Count = 4096


@MoCoConfig.makes("moco")
class MoCo(EMA):
    """A prediction is nearer to its target, by a slow copy of the encoder, than to targets of earlier steps."""

    compares_samples = True
    queue: Tensor

    def __init__(self, config: MoCoConfig, model: JEPA):
        super().__init__(config, model)
        keys = torch.randn(config.queue_size, model.config.embed_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("queue", F.normalize(keys, dim=1))

    def forward(self, latents, predicted, actions, generator):
        keys = F.normalize(latents.target[:, 1:].flatten(0, 1).float(), dim=1)
        contrast = info_nce(predicted.flatten(0, 1), keys, self.queue, self.config.temperature)
        self.queue = torch.cat([keys, self.queue])[: len(self.queue)]
        return {"contrast": contrast}


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Returns the cross-entropy of picking each query's own key, (N, D) both, among it and negatives (K, D)."""
    queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ F.normalize(negatives, dim=1).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long, device=logits.device))


@dataclass(frozen=True)
class KLConfig(RegularizerConfig):
    """A variational encoder, arXiv 1312.6114, without its decoder."""

    weight: NonNegative = 1.0
    """β; 1 is the evidence lower bound with unit variance around a prediction."""


@KLConfig.makes("kl")
class KL(Regularizer):
    """Embeddings are drawn from a Gaussian that the encoder names, and each Gaussian is held near N(0, I)."""

    def __init__(self, config: KLConfig, model: JEPA):
        super().__init__(config, model)
        self.log_var = nn.Linear(model.config.embed_dim, model.config.embed_dim)

    def embed(self, model, seen, generator):
        mean = model.encode(seen)
        everyones = torch.randn(num_ranks(), *mean.shape, generator=generator, device=mean.device)
        z = mean + (0.5 * self.log_var(mean).float()).exp() * everyones[rank()]
        return Latents(mean, z, z)

    def forward(self, latents, predicted, actions, generator):
        return {"kl": kl_to_standard_normal(latents.mean, self.log_var(latents.mean).float())}


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Returns twice the divergence of N(mean, exp(log_var)) from N(0, 1), on average over all dimensions.

    Twice, because the squared error beside it is twice the Gaussian's negative log-likelihood.
    """
    return (mean.square() + log_var.exp() - 1 - log_var).mean()


@dataclass(frozen=True)
class PLDMConfig(RegularizerConfig):
    """arXiv 2502.14819: the authors' weights for pictures of a room with a wall."""

    variance_weight: NonNegative = 3.98
    covariance_weight: NonNegative = 6.92
    """Of the mean over pairs of dimensions, where VICReg sums over one of the two."""
    temporal_weight: NonNegative = 0.742
    inverse_weight: NonNegative = 1.07


@PLDMConfig.makes("pldm")
class PLDM(Regularizer):
    """VICReg at each time step; besides, embeddings change slowly, and two in a row tell the action between them."""

    compares_samples = True

    def __init__(self, config: PLDMConfig, model: JEPA):
        super().__init__(config, model)
        self.inverse = InverseModel(model)

    def forward(self, latents, predicted, actions, generator):
        z = latents.z
        steps = z.transpose(0, 1)
        return {
            "variance": variance_hinge(steps),
            "covariance": covariance(steps) / (z.shape[-1] - 1),
            "temporal": F.mse_loss(z[:, 1:], z[:, :-1]),
            "inverse": self.inverse(z, actions),
        }
