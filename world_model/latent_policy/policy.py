"""From embeddings straight to actions, without a search: what to do now to get from one picture to another.

Two kinds are regressions on the data's own blocks, with a later frame of the same episode as the goal, and differ in
how much later. The inverse model answers what led from a frame to one a few blocks on (cf. arXiv 2605.08732); goal-
conditioned behaviour cloning imitates whatever was done on the way to any later frame (Ding et al., 2019). A third
learns nothing but looks up what was done (`retrieval`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# From the blocks (B, h, A) begun now to the embeddings (B, D) that they lead to.
Foresee = Callable[[Tensor], Tensor]


class LatentPolicy(nn.Module):
    """What proposes plans toward a goal, in embeddings (..., D) and blocks (..., A) of so many numbers."""

    embed_dim: int
    action_dim: int

    def plans(self, z_before: Tensor, z: Tensor, z_goal: Tensor, horizon: int, foresee: Foresee) -> Tensor:
        """Returns K plans (B, K, H, A), the best first, in the environment's own units; they may lie outside its
        bounds. It is told the embeddings one block ago, of now, and of the goal, (B, D) each.
        """
        raise NotImplementedError


class Regression(LatentPolicy):
    """An MLP from the embeddings one block ago, of now, and of the goal (B, D) each, to a block of actions (B, A)."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, embed_dim: int, action_dim: int, hidden: int = 512):
        super().__init__()
        self.embed_dim, self.action_dim = embed_dim, action_dim
        self.layers = nn.Sequential(
            nn.Linear(3 * embed_dim, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, action_dim),
        )
        self.register_buffer("action_mean", torch.zeros(action_dim))
        self.register_buffer("action_std", torch.ones(action_dim))

    def standardised(self, z_before: Tensor, z: Tensor, z_goal: Tensor) -> Tensor:
        """Returns the block in units of the training data's mean and std."""
        return self.layers(torch.cat([z - z_before, z, z_goal], dim=-1))

    def forward(self, z_before: Tensor, z: Tensor, z_goal: Tensor) -> Tensor:
        """Returns the block in the environment's own units; it may lie outside its bounds."""
        return self.standardised(z_before, z, z_goal) * self.action_std + self.action_mean

    def plans(self, z_before, z, z_goal, horizon, foresee):
        """Returns one plan: in every future, what the policy does next there."""
        blocks: list[Tensor] = []
        for _ in range(horizon):
            if blocks:
                z_before, z = z, foresee(torch.stack(blocks, dim=1))
            blocks.append(self(z_before, z, z_goal))
        return torch.stack(blocks, dim=1).unsqueeze(1)
