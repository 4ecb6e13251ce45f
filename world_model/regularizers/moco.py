"""Predictions are told from a queue of earlier steps' targets (momentum contrast, arXiv 1911.05722)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_mpc.settings import Count, Fraction, NonNegative, Positive
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Regularizer, RegularizerConfig
from jepa_mpc.world_model.regularizers.ema import EMA


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

    def make(self, model: JEPA) -> Regularizer:
        return MoCo(self, model)


REGULARIZERS.register("moco", MoCoConfig)


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


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Returns the cross-entropy of picking each query's own key, (N, D) both, among it and negatives (K, D)."""
    queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ F.normalize(negatives, dim=1).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long, device=logits.device))
