"""What keeps a JEPA from collapsing, and what has been tried instead: each remedy in its own few lines.

Prediction alone is at its best when every picture gets the same embedding. A remedy may change what is embedded and
what is predicted (`embed`), add penalties to the prediction error (`forward`), and keep something of its own up to date
after a step (`follow`). All else (data, encoder, predictor, optimiser, rollout loss) is shared. Defaults are
the sources' own weights where they have one, relative to a weight of 1 on the mean squared prediction error.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.distributed import num_ranks, rank
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.sigreg import SIGReg

RegularizerName = Literal["none", "ema", "vicreg", "simclr", "moco", "kl", "pldm", "sigreg"]


class Latents(NamedTuple):
    """Embeddings (B, T, D) of windows: the encoder's, what the predictor sees, and what it is to predict."""

    mean: Tensor
    z: Tensor
    target: Tensor


class Regularizer(nn.Module):
    """The remedy `none`, and the surface of all: prediction error alone, with gradients through the targets."""

    spherical: ClassVar[bool] = False  # embeddings lie on a sphere, as losses on cosines see them
    compares_samples: ClassVar[bool] = False  # `forward` must see the windows of all processes
    weights: dict[str, float]  # of each penalty in the loss

    def __init__(self, config: Any, model: JEPA):
        super().__init__()
        self.config, self.weights = config, {}

    def embed(self, model: JEPA, pixels: Tensor, generator: torch.Generator) -> Latents:
        """Pictures (B, T, H, W, 3) to embeddings."""
        z = model.encode(pixels)
        return Latents(z, z, z)

    def forward(
        self, latents: Latents, predicted: Tensor, actions: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Penalties (scalars) by name, given predictions (B, T-1, D) of the last T - 1 targets and normalised
        actions (B, T-1, A).
        """
        return {}

    def follow(self, model: JEPA) -> None:
        """Called after every step of the optimiser."""


class InverseModel(nn.Module):
    """How badly an MLP tells the actions between embeddings: mean squared error of z (B, T, D) for (B, T-1, A)."""

    def __init__(self, model: JEPA):
        super().__init__()
        embed_dim, action_dim = model.config.embed_dim, model.config.action_dim
        self.layers = nn.Sequential(nn.Linear(2 * embed_dim, 512), nn.ReLU(), nn.Linear(512, action_dim))

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        return F.mse_loss(self.layers(torch.cat([z[:, :-1], z[:, 1:]], dim=-1)), actions)


@dataclass(frozen=True)
class SIGRegConfig:
    """LeJEPA, arXiv 2511.08544; LeWorldModel, arXiv 2603.19312."""

    weight: float = 0.2
    """λ; tied to the batch size."""
    num_proj: int = 256
    """Random directions."""
    knots: int = 17
    """Trapezoid knots."""
    inverse_weight: float = 0.0
    """Of telling the actions from the embeddings before and after them, as PLDM does; 0: LeWorldModel's loss. It keeps
    what actions move where other things, such as a block at rest, are easier to predict."""


class SIGRegRegularizer(Regularizer):
    """Embeddings of each time step are distributed as N(0, I) over the batch."""

    def __init__(self, config: SIGRegConfig, model: JEPA):
        super().__init__(config, model)
        self.sigreg = SIGReg(config.num_proj, config.knots)
        self.weights = {"sigreg": config.weight}
        if config.inverse_weight:
            self.weights["inverse"] = config.inverse_weight
            self.inverse = InverseModel(model)

    def forward(self, latents, predicted, actions, generator):
        penalties = {"sigreg": self.sigreg(latents.z.transpose(0, 1), generator)}
        if self.config.inverse_weight:
            penalties["inverse"] = self.inverse(latents.z, actions)
        return penalties


@dataclass(frozen=True)
class EMAConfig:
    """BYOL, arXiv 2006.07733. Its rate decays to zero over training; here it is constant."""

    rate: float = 0.004
    """How fast the target encoder follows the encoder, per step: one less the momentum, 0.996."""


class EMA(Regularizer):
    """Targets come from a slow copy of the encoder, and no gradient flows into them."""

    spherical = True

    def __init__(self, config: Any, model: JEPA):
        super().__init__(config, model)
        self.encoder = copy.deepcopy(model.encoder).requires_grad_(False)
        self.projector = copy.deepcopy(model.projector).requires_grad_(False)

    def embed(self, model, pixels, generator):
        z = model.encode(pixels)
        with torch.no_grad():
            target = model.encode(pixels, self.encoder, self.projector)
        return Latents(z, z, target)

    @torch.no_grad()
    def follow(self, model):
        for slow, fast in ((self.encoder, model.encoder), (self.projector, model.projector)):
            for slow_weight, weight in zip(slow.parameters(), fast.parameters(), strict=True):
                slow_weight.lerp_(weight, self.config.rate)


@dataclass(frozen=True)
class MoCoConfig:
    """Momentum contrast, arXiv 1911.05722; its queue holds 65,536 keys for batches of 256."""

    weight: float = 1.0
    temperature: float = 0.07
    """Divides cosine similarities."""
    rate: float = 0.001
    queue_size: int = 4096


class MoCo(EMA):
    """A prediction is nearer to its target, by a slow copy of the encoder, than to targets of earlier steps."""

    compares_samples = True
    queue: Tensor

    def __init__(self, config: MoCoConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"contrast": config.weight}
        keys = torch.randn(config.queue_size, model.config.embed_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("queue", F.normalize(keys, dim=1))

    def forward(self, latents, predicted, actions, generator):
        keys = F.normalize(latents.target[:, 1:].flatten(0, 1).float(), dim=1)
        contrast = info_nce(predicted.flatten(0, 1), keys, self.queue, self.config.temperature)
        self.queue = torch.cat([keys, self.queue])[: len(self.queue)]
        return {"contrast": contrast}


@dataclass(frozen=True)
class SimCLRConfig:
    """arXiv 2002.05709; the temperature of its ImageNet runs."""

    weight: float = 1.0
    temperature: float = 0.1
    """Divides cosine similarities."""


class SimCLR(Regularizer):
    """A prediction and its target are nearer to each other than to all other frames of the batch."""

    spherical = True
    compares_samples = True

    def __init__(self, config: SimCLRConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"contrast": config.weight}

    def forward(self, latents, predicted, actions, generator):
        pairs = predicted.flatten(0, 1), latents.target[:, 1:].flatten(0, 1)
        return {"contrast": nt_xent(*pairs, self.config.temperature)}


@dataclass(frozen=True)
class VICRegConfig:
    """arXiv 2105.04906: 25, 25 and 1 on invariance, variance and covariance."""

    variance_weight: float = 1.0
    covariance_weight: float = 1 / 25


class VICReg(Regularizer):
    """Every dimension varies over the batch, and no two vary together."""

    compares_samples = True

    def __init__(self, config: VICRegConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {"variance": config.variance_weight, "covariance": config.covariance_weight}

    def forward(self, latents, predicted, actions, generator):
        z = latents.z.flatten(0, 1)
        return {"variance": variance_hinge(z), "covariance": covariance(z)}


@dataclass(frozen=True)
class PLDMConfig:
    """arXiv 2502.14819: the authors' weights for pictures of a room with a wall."""

    variance_weight: float = 3.98
    covariance_weight: float = 6.92
    """Of the mean over pairs of dimensions, where VICReg sums over one of the two."""
    temporal_weight: float = 0.742
    inverse_weight: float = 1.07


class PLDM(Regularizer):
    """VICReg at each time step; besides, embeddings change slowly, and two in a row tell the action between them."""

    compares_samples = True

    def __init__(self, config: PLDMConfig, model: JEPA):
        super().__init__(config, model)
        self.weights = {name: getattr(config, f"{name}_weight") for name in _PLDM_TERMS}
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


_PLDM_TERMS = ("variance", "covariance", "temporal", "inverse")


@dataclass(frozen=True)
class KLConfig:
    """A variational encoder, arXiv 1312.6114, without its decoder."""

    weight: float = 1.0
    """β; 1 is the evidence lower bound with unit variance around a prediction."""


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


def variance_hinge(z: Tensor) -> Tensor:
    """How far the std of each dimension of z (..., N, D) falls short of 1, on average (VICReg, equation 1)."""
    return F.relu(1 - (z.var(dim=-2) + 1e-4).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """Squared covariances of z (..., N, D) off the diagonal, summed and divided by D (VICReg, equation 4)."""
    centred = z - z.mean(dim=-2, keepdim=True)
    matrix = centred.transpose(-1, -2) @ centred / (z.shape[-2] - 1)
    squares = matrix.square()
    return ((squares.sum((-1, -2)) - squares.diagonal(dim1=-2, dim2=-1).sum(-1)) / z.shape[-1]).mean()


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of picking each query's own key, (N, D) both, among it and negatives (K, D)."""
    queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ F.normalize(negatives, dim=1).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long, device=logits.device))


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of picking its partner for each of a and b (N, D), among all others (SimCLR, equation 1)."""
    both = F.normalize(torch.cat([a, b]).float(), dim=1)
    logits = (both @ both.T / temperature).fill_diagonal_(-math.inf)
    n = len(a)
    partner = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(logits, partner)


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Twice the divergence of N(mean, exp(log_var)) from N(0, 1), on average over all dimensions.

    Twice, because the squared error beside it is twice the Gaussian's negative log-likelihood.
    """
    return (mean.square() + log_var.exp() - 1 - log_var).mean()


REGULARIZERS: dict[RegularizerName, type[Regularizer]] = {
    "none": Regularizer,
    "ema": EMA,
    "vicreg": VICReg,
    "simclr": SimCLR,
    "moco": MoCo,
    "kl": KL,
    "pldm": PLDM,
    "sigreg": SIGRegRegularizer,
}
