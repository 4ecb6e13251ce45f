"""What every remedy against a JEPA's collapse is: the surface that SIGReg and its alternatives share.

Prediction alone is at its best when every picture gets the same embedding. A remedy may change what is embedded and
what is predicted (`embed`), add penalties to the prediction error (`forward`), and keep something of its own up to date
after a step (`follow`). All else (data, encoder, predictor, optimiser, rollout loss) is shared. Defaults are
the sources' own weights where they have one, relative to a weight of 1 on the mean squared prediction error.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.registry import Registry
from jepa_mpc.settings import Choice
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.observation import Observation

REGULARIZERS: Registry[type["RegularizerConfig"]] = Registry("regularizer")


@dataclass(frozen=True)
class RegularizerConfig(Choice):
    """Prediction error alone, and the settings of all remedies: what they have in common."""

    choices: ClassVar[Registry[Any]] = REGULARIZERS
    spherical: ClassVar[bool] = False  # embeddings lie on a sphere, as losses on cosines see them

    def make(self, model: JEPA) -> "Regularizer":
        """Returns the remedy, for that model."""
        return self.made(self, model)


class Latents(NamedTuple):
    """Embeddings (B, T, D) of windows: the encoder's, what the predictor sees, and what it is to predict."""

    mean: Tensor
    z: Tensor
    target: Tensor


@RegularizerConfig.makes("none")
class Regularizer(nn.Module):
    """The remedy `none`, and the surface of all: prediction error alone, with gradients through the targets."""

    compares_samples: ClassVar[bool] = False  # `forward` must see the windows of all processes

    def __init__(self, config: Any, model: JEPA):
        super().__init__()
        self.config = config

    def weight(self, penalty: str) -> float:
        """Returns a penalty's weight in the loss: the setting `<penalty>_weight`, or else `weight`, or 1."""
        settings = vars(self.config)
        return settings.get(f"{penalty}_weight", settings.get("weight", 1.0))

    def embed(self, model: JEPA, seen: Observation, generator: torch.Generator) -> Latents:
        """Returns embeddings of what was seen and felt (B, T, ...)."""
        z = model.encode(seen)
        return Latents(z, z, z)

    def forward(
        self, latents: Latents, predicted: Tensor, actions: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Returns penalties (scalars) by name, given predictions (B, T-1, D) of the last T - 1 targets and normalised
        actions (B, T-1, A).
        """
        return {}

    def follow(self, model: JEPA) -> None:
        """Updates what the remedy keeps of its own, after a step of the optimiser."""


class InverseModel(nn.Module):
    """Measures how badly an MLP tells the actions between embeddings, for remedies that ask for it."""

    def __init__(self, model: JEPA):
        super().__init__()
        embed_dim, action_dim = model.config.embed_dim, model.config.action_dim
        self.layers = nn.Sequential(nn.Linear(2 * embed_dim, 512), nn.ReLU(), nn.Linear(512, action_dim))

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """Returns the mean squared error of z (B, T, D) for actions (B, T-1, A)."""
        return F.mse_loss(self.layers(torch.cat([z[:, :-1], z[:, 1:]], dim=-1)), actions)
