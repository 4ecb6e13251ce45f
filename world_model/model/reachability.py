"""How many blocks apart two pictures are: a metric on frozen embeddings, learned without reward or state.

Latent distance says how alike two pictures look; a planner that follows it stalls where the way first leads away from
the goal. This head is the value of going there: d(a, b) = ‖φ(a) − φ(b)‖ is fitted to the discounted number of
blocks that the best behaviour in the data would take from a to b. Where momentum decides, as in a swing-up, a picture
does not say what can be reached from it: d(a, b) = ‖φ(a, ȧ) − ψ(b)‖ then also reads how the embedding changed in the
block before, and is a metric no more. Sources: expectile regression of values, IQL,
arXiv 2110.06169; values as distances in a learned space, HILP, arXiv 2402.15567.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from jepa_mpc.world_model.model.encoder import Size


@dataclass(frozen=True)
class ReachabilityConfig:
    hidden: Size = 256
    metric_dim: Size = 32
    velocity: bool = False
    """Also read how the embedding has just changed; for bodies with momentum."""


class Reachability(nn.Module):
    """A learned distance between embeddings: φ, an MLP, and the Euclidean distance behind it; goals have ψ, an MLP of
    their own, where φ reads velocity.
    """

    def __init__(self, config: ReachabilityConfig, embed_dim: int):
        super().__init__()
        self.features = _mlp(embed_dim * (1 + config.velocity), config)
        self.goal_features = _mlp(embed_dim, config) if config.velocity else None

    def state(self, z: Tensor, z_before: Tensor) -> Tensor:
        """Returns φ (..., M) of embeddings (..., D), given those one block before them (..., D)."""
        return self.features(z if self.goal_features is None else torch.cat([z, z - z_before], dim=-1))

    def goal(self, z_goal: Tensor) -> Tensor:
        """Returns what φ is compared with (..., M), of goals (..., D)."""
        return (self.features if self.goal_features is None else self.goal_features)(z_goal)

    def forward(self, z: Tensor, z_before: Tensor, z_goal: Tensor) -> Tensor:
        """Returns discounted blocks (...) from z (..., D), those a block before, to goals; all may broadcast."""
        return (self.state(z, z_before) - self.goal(z_goal)).norm(dim=-1)

    @torch.no_grad()
    def fold(self, whitening: Whitening) -> None:
        """Rewrites the first layers, so that a metric trained on whitened embeddings takes them as they are."""
        mean, matrix = whitening
        for mlp in (self.features, self.goal_features):
            if mlp is not None:
                first = cast(nn.Linear, mlp[0])
                parts = [part @ matrix.T for part in first.weight.split(len(mean), dim=1)]
                first.weight.copy_(torch.cat(parts, dim=1))
                first.bias.sub_(parts[0] @ mean)


class Whitening(NamedTuple):
    """ZCA whitening: turns embeddings z (..., D) into (z − mean) @ matrix, whose directions vary nearly alike.

    What tells two poses apart may be a direction that hardly varies, such as on which side an arm is folded; an MLP
    would take long to notice it.
    """

    mean: Tensor  # (D,)
    matrix: Tensor  # (D, D), symmetric

    def __call__(self, z: Tensor) -> Tensor:
        return (z - self.mean) @ self.matrix

    @classmethod
    def fit(cls, z: Tensor, floor: float = 0.01) -> Whitening:
        """Fits the whitening of embeddings (N, D). The floor, in shares of the mean variance, is added to every
        direction's, so that noise is not blown up.
        """
        mean = z.mean(0)
        centred = (z - mean).cpu().double()  # once, and not every accelerator has doubles
        variance, directions = torch.linalg.eigh(centred.T @ centred / len(z))
        scale = (variance.clamp_min(0) + floor * variance.mean()).rsqrt()
        return cls(mean, ((directions * scale) @ directions.T).to(z))  # back, for signs are arbitrary


def _mlp(num_inputs: int, config: ReachabilityConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_inputs, config.hidden),
        nn.GELU(),
        nn.Linear(config.hidden, config.hidden),
        nn.GELU(),
        nn.Linear(config.hidden, config.metric_dim),
    )


def reachability_loss(
    metric: Reachability,
    target: Reachability,
    z_before: Tensor,
    z: Tensor,
    z_next: Tensor,
    z_goal: Tensor,
    is_goal: Tensor,
    discount: float,
    expectile: float,
) -> Tensor:
    """Returns the expectile loss of the distance against one block plus the discounted distance from the block's end.

    Row i of the goals is a later frame of episode i; the goals of the other rows serve as random ones, so N
    transitions give N² pairs for the price of N embeddings. Both kinds weigh one half.

    Args:
        metric, target: the head, and a slow copy of it that bootstraps.
        z_before, z, z_next: (N, D) embeddings of three frames in a row.
        z_goal: (M, D) embeddings of goals, M ≥ N; further ones than N are random for all.
        is_goal: (N, M) whether frame i is itself goal j, which is zero blocks away.
        discount: per block; distances saturate at 1 / (1 − discount).
        expectile: above one half, the shortest of the ways seen counts most.
    """
    distance = _pairwise(metric.state(z, z_before), metric.goal(z_goal))
    with torch.no_grad():
        rest = _pairwise(target.state(z_next, z), target.goal(z_goal))
        blocks = torch.where(is_goal, 0.0, 1 + discount * rest)
    excess = distance - blocks
    loss = torch.where(excess > 0, expectile, 1 - expectile) * excess.square()
    return 0.5 * loss.diagonal().mean() + 0.5 * loss.mean()


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Returns Euclidean distances (N, M) of (N, D) and (M, D), with a finite gradient at zero."""
    squared = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return (squared.clamp_min(0) + 1e-6).sqrt()
