"""The joint-embedding predictive architecture: encode pictures, predict embeddings, score the predictions.

Notable: there is no decoder; what keeps the embeddings from collapsing is not here, but in `regularizers`. Pictures
and actions are normalised inside, so callers pass raw uint8 pictures and actions in the environment's own units.
Source: LeWorldModel, arXiv 2603.19312.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.settings import Natural
from jepa_mpc.world_model.model.encoder import EncoderConfig, Size, build_encoder, build_projector
from jepa_mpc.world_model.model.lewm_predictor import LeWMPredictor
from jepa_mpc.world_model.model.predictor import Modulation, Predictor, PredictorConfig
from jepa_mpc.world_model.model.reachability import Reachability, ReachabilityConfig
from jepa_mpc.world_model.model.surprise import UsualMiss
from jepa_mpc.world_model.observation import Observation


@dataclass(frozen=True)
class JEPAConfig:
    action_dim: Size
    """A: one action's dimensions times the action block."""
    embed_dim: Size = 64
    projector_hidden: Size = 512
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    reachability: ReachabilityConfig | None = None
    """None: without a reachability metric."""
    spherical: bool = False
    """Embeddings are scaled to length √D, as losses on cosines see them."""
    projector_activation: Literal["relu", "gelu"] = "relu"
    robust: bool = False
    """A second encoder and projector embed varied pictures as the first embed those of training."""
    proprio_dim: Natural = 0
    """P: numbers that the robot feels of itself; 0: it is known by its pictures alone."""

    @property
    def is_multimodal(self) -> bool:
        """Says whether a goal may show less than what is seen and felt now."""
        return self.encoder.num_views > 1 or self.proprio_dim > 0


class Predictions(NamedTuple):
    """One-step predictions (B, T-1, D), and two scalars: their mean squared error and that of an open-loop rollout."""

    predicted: Tensor
    one_step: Tensor
    rollout: Tensor


def disagreement(z: Tensor, z_other: Tensor) -> Tensor:
    """Returns the mean squared difference (...) of embeddings (..., D)."""
    return (z - z_other).square().mean(dim=-1)


class JEPA(nn.Module):
    """Encoder, projector, predictor and reachability metric with the normalisers that they were trained under."""

    action_mean: Tensor
    action_std: Tensor
    usual_disagreement: Tensor  # of both encoders, where pictures are training's; inf until the second has learned
    usual_miss: UsualMiss | None = None  # unknown, unless a checkpoint says

    def __init__(self, config: JEPAConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, config.proprio_dim)
        self.projector = build_projector(
            self.encoder.num_features, config.projector_hidden, config.embed_dim, config.projector_activation
        )
        self.robust = None
        if config.robust:
            parts = {"encoder": self.encoder, "projector": self.projector}
            self.robust = nn.ModuleDict({name: copy.deepcopy(part) for name, part in parts.items()})
            self.register_buffer("usual_disagreement", torch.tensor(math.inf))
        predictor = Predictor if config.predictor.kind == "residual" else LeWMPredictor
        self.predictor = predictor(config.predictor, config.embed_dim, config.action_dim)
        self.reachability = Reachability(config.reachability, config.embed_dim) if config.reachability else None
        self.register_buffer("action_mean", torch.zeros(config.action_dim))
        self.register_buffer("action_std", torch.ones(config.action_dim))

    def encode(
        self, seen: Tensor | Observation, encoder: nn.Module | None = None, projector: nn.Module | None = None
    ) -> Tensor:
        """Maps pictures (..., H, V·W, 3) uint8, or observations, to embeddings (..., D); by another encoder and
        projector if given. Without proprioception all of it counts as unknown; models trained without ignore it.

        Notable: of a model with two encoders, the first is the more precise, and knows only pictures as in training;
        the second has learned to say of varied ones what the first says of those. Where they disagree more than is
        usual, the pictures are others.
        """
        if self.robust is not None and encoder is None and not self.training:
            z, z_robust = self.encode_by_both(seen)
            return torch.where(disagreement(z, z_robust)[..., None] > self.usual_disagreement, z_robust, z)
        pixels, proprio = Observation.of(seen)
        inputs, size = [self.normalise_pixels(pixels)], self.config.proprio_dim
        if size and proprio is not None:
            if proprio.shape[-1] != size:
                raise UserError(f"proprio must be (..., {size}), not {tuple(proprio.shape)}")
            inputs.append(proprio.reshape(-1, size))
        z = (projector or self.projector)((encoder or self.encoder)(*inputs)).float()
        if self.config.spherical:
            z = F.normalize(z, dim=-1) * math.sqrt(self.config.embed_dim)
        return z.view(*pixels.shape[:-3], -1)

    def encode_by_both(self, seen: Tensor | Observation) -> tuple[Tensor, Tensor]:
        """Maps pictures, or observations, to embeddings (..., D) by the first encoder and by the second."""
        assert self.robust is not None
        parts = (self.encoder, self.projector), (self.robust["encoder"], self.robust["projector"])
        z, z_robust = (self.encode(seen, *each) for each in parts)
        return z, z_robust

    def begin_robust(self) -> None:
        """Makes the second encoder what the first is now, and leaves it out until it has learned."""
        assert self.robust is not None
        self.robust["encoder"].load_state_dict(self.encoder.state_dict())
        self.robust["projector"].load_state_dict(self.projector.state_dict())
        self.usual_disagreement.fill_(math.inf)

    def normalise_pixels(self, pixels: Tensor) -> Tensor:
        """Returns pictures (..., H, V·W, 3) as the encoder takes them (N, 3, H, V·W); raises `UserError` on others."""
        height, width = self.config.encoder.picture_size
        if pixels.shape[-3:] != (height, width, 3):
            raise UserError(f"pictures must be (..., {height}, {width}, 3), not {tuple(pixels.shape)}")
        images = pixels.reshape(-1, height, width, 3).permute(0, 3, 1, 2)  # a view, channels last in memory
        return images.float() / 127.5 - 1

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predicts, at every time, the embeddings (B, T, D) that follow z (B, T, D) under actions (B, T, A)."""
        return self.predictor(z, self._condition(actions))

    def rollout(
        self, z_history: Tensor, past_actions: Tensor | None, actions: Tensor, offset: Tensor | None = None
    ) -> Tensor:
        """Predicts open-loop futures of S action sequences.

        Args:
            z_history: (B, h, D) embeddings of real pictures, oldest first.
            past_actions: (B, h - 1, A) blocks between them; None when h is 1.
            actions: (B, S, H, A) candidate blocks from the last picture on.
            offset: (B, D) added to every prediction, the mean of what late ones have missed.

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
        correction = 0.0 if offset is None else offset[:, None].repeat_interleave(S, dim=0)
        future = []
        for step in range(H):
            z = self.predictor(z, tuple(layer[:, step : step + 1] for layer in modulation), cache) + correction
            future.append(z)
        return torch.cat(future, dim=1).view(B, S, H, -1)

    @staticmethod
    def latent_distance(z: Tensor, z_goal: Tensor) -> Tensor:
        """Returns the Euclidean distance (...) between embeddings (..., D), which may broadcast."""
        return (z - z_goal).norm(dim=-1)

    def score_predictions(self, z: Tensor, target: Tensor, actions: Tensor, num_context: int) -> Predictions:
        """Predicts one step ahead, and by an open-loop rollout that sees `num_context` frames, and scores both.

        z (B, T, D) are embeddings of windows, target (B, T, D) those to be predicted, actions (B, T-1, A) the blocks
        between them.
        """
        context, rest = z[:, :num_context], actions[:, num_context - 1 :]
        rollout = self.rollout(context, actions[:, : num_context - 1], rest.unsqueeze(1)).squeeze(1)
        predicted = self.predict(z[:, :-1], actions)
        return Predictions(
            predicted, F.mse_loss(predicted, target[:, 1:]), F.mse_loss(rollout, target[:, num_context:])
        )

    def normalise_actions(self, actions: Tensor) -> Tensor:
        """Returns action blocks (..., A) in units of the training data's mean and std."""
        return (actions - self.action_mean) / self.action_std

    def _condition(self, actions: Tensor) -> Modulation:
        return self.predictor.condition(self.normalise_actions(actions))
