"""VICReg at each time step, slow embeddings, and the actions told from them (PLDM, arXiv 2502.14819)."""

from dataclasses import dataclass

import torch.nn.functional as F

from jepa_mpc.settings import NonNegative
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, InverseModel, Regularizer, RegularizerConfig
from jepa_mpc.world_model.regularizers.vicreg import covariance, variance_hinge


@dataclass(frozen=True)
class PLDMConfig(RegularizerConfig):
    """arXiv 2502.14819: the authors' weights for pictures of a room with a wall."""

    variance_weight: NonNegative = 3.98
    covariance_weight: NonNegative = 6.92
    """Of the mean over pairs of dimensions, where VICReg sums over one of the two."""
    temporal_weight: NonNegative = 0.742
    inverse_weight: NonNegative = 1.07

    def make(self, model: JEPA) -> Regularizer:
        return PLDM(self, model)


REGULARIZERS.register("pldm", PLDMConfig)


class PLDM(Regularizer):
    """VICReg at each time step; besides, embeddings change slowly, and two in a row tell the action between them."""

    compares_samples = True

    def __init__(self, config: PLDMConfig, model: JEPA):
        super().__init__(config, model)
        terms = ("variance", "covariance", "temporal", "inverse")
        self.weights = {name: getattr(config, f"{name}_weight") for name in terms}
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
