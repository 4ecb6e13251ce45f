"""A slow copy of the encoder gives the targets, and no gradient flows into them (BYOL, arXiv 2006.07733)."""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from jepa_mpc.settings import Fraction
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Latents, Regularizer, RegularizerConfig


@dataclass(frozen=True)
class EMAConfig(RegularizerConfig):
    """BYOL, arXiv 2006.07733. Its rate decays to zero over training; here it is constant."""

    spherical: ClassVar[bool] = True
    rate: Fraction = 0.004
    """How fast the target encoder follows the encoder, per step: one less the momentum, 0.996."""

    def make(self, model: JEPA) -> Regularizer:
        return EMA(self, model)


REGULARIZERS.register("ema", EMAConfig)


class EMA(Regularizer):
    """Targets come from a slow copy of the encoder, and no gradient flows into them."""

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
