"""The joint-embedding predictive architecture: encode pictures, predict embeddings, score both losses.

Notable: gradients flow through the target embeddings as well (no stop-gradient, no moving average, no decoder);
SIGReg alone keeps them from collapsing. Pictures and actions are normalised inside, so callers pass raw uint8
pictures and actions in the environment's own units. Source: LeWorldModel, arXiv 2603.19312.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.encoder import EncoderConfig, build_encoder, build_projector
from world_model.predictor import Modulation, Predictor, PredictorConfig
from world_model.reachability import Reachability, ReachabilityConfig
from world_model.sigreg import SIGReg


@dataclass(frozen=True)
class JEPAConfig:
    action_dim: int
    """A: one action's dimensions times the action block."""
    embed_dim: int = 64
    projector_hidden: int = 512
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    reachability: ReachabilityConfig | None = None
    """None: without a reachability metric."""


class LossTerms(NamedTuple):
    """Scalars: mean squared next-embedding error, the same for an open-loop rollout, and the SIGReg statistic."""

    prediction: Tensor
    rollout: Tensor
    sigreg: Tensor


class JEPA(nn.Module):
    """Encoder, projector, predictor and reachability metric with the normalisers that they were trained under."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, config: JEPAConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder)
        self.projector = build_projector(self.encoder.num_features, config.projector_hidden, config.embed_dim)
        self.predictor = Predictor(config.predictor, config.embed_dim, config.action_dim)
        self.reachability = Reachability(config.reachability, config.embed_dim) if config.reachability else None
        self.register_buffer("action_mean", torch.zeros(config.action_dim))
        self.register_buffer("action_std", torch.ones(config.action_dim))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures (..., H, W, 3) uint8 to embeddings (..., D)."""
        size = self.config.encoder.image_size
        if pixels.shape[-3:] != (size, size, 3):
            raise ValueError(f"pictures must be (..., {size}, {size}, 3), not {tuple(pixels.shape)}")
        lead = pixels.shape[:-3]
        images = pixels.reshape(-1, size, size, 3).permute(0, 3, 1, 2)  # a view, channels last in memory
        z = self.projector(self.encoder(images.float() / 127.5 - 1))
        return z.float().view(*lead, -1)

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """One step ahead at every time: z (B, T, D), actions (B, T, A) to the embeddings after them (B, T, D)."""
        return self.predictor(z, self._condition(actions))

    def rollout(self, z_history: Tensor, past_actions: Tensor | None, actions: Tensor) -> Tensor:
        """Open-loop futures of S action sequences.

        Args:
            z_history: (B, h, D) embeddings of real pictures, oldest first.
            past_actions: (B, h - 1, A) blocks between them; None when h is 1.
            actions: (B, S, H, A) candidate blocks from the last picture on.

        Returns:
            (B, S, H, D) predicted embeddings after each block.
        """
        B, S, H, A = actions.shape
        num_past = z_history.shape[1] - 1
        cache = self.predictor.new_cache(num_past + H)
        if num_past:  # the history is shared: its keys and values are computed once for all samples
            assert past_actions is not None
            self.predictor(z_history[:, :-1], self._condition(past_actions), cache)
            cache = cache.repeat(S)
        modulation = self._condition(actions.reshape(B * S, H, A))
        z = z_history[:, -1:].repeat_interleave(S, dim=0)
        future = []
        for step in range(H):
            z = self.predictor(z, tuple(layer[:, step : step + 1] for layer in modulation), cache)
            future.append(z)
        return torch.cat(future, dim=1).view(B, S, H, -1)

    @staticmethod
    def latent_distance(z: Tensor, z_goal: Tensor) -> Tensor:
        """Euclidean distance (...) between embeddings (..., D), which may broadcast."""
        return (z - z_goal).norm(dim=-1)

    def prediction_losses(self, z: Tensor, actions: Tensor, num_context: int) -> tuple[Tensor, Tensor]:
        """Mean squared errors, one step ahead and of an open-loop rollout that sees `num_context` frames.

        z (B, T, D) are embeddings of windows, actions (B, T-1, A) the blocks between them.
        """
        context, rest = z[:, :num_context], actions[:, num_context - 1 :]
        rollout = self.rollout(context, actions[:, : num_context - 1], rest.unsqueeze(1)).squeeze(1)
        one_step = F.mse_loss(self.predict(z[:, :-1], actions), z[:, 1:])
        return one_step, F.mse_loss(rollout, z[:, num_context:])

    def loss_terms(
        self,
        pixels: Tensor,
        actions: Tensor,
        sigreg: SIGReg,
        num_context: int,
        generator: torch.Generator | None = None,
    ) -> LossTerms:
        """Losses of windows: pixels (B, T, H, W, 3), actions (B, T-1, A); the rollout sees `num_context` frames."""
        z = self.encode(pixels)
        prediction, rollout = self.prediction_losses(z, actions, num_context)
        # SIGReg per time step, over the batch
        return LossTerms(prediction, rollout, sigreg(z.transpose(0, 1), generator))

    def _condition(self, actions: Tensor) -> Modulation:
        return self.predictor.condition((actions - self.action_mean) / self.action_std)
