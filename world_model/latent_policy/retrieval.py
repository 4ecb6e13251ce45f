"""What was done in the data where things stood as they do now, and led to what is wanted.

A search over many numbers a block seldom finds a grasp; the data hold hundreds. They are looked up by their embeddings
(cf. IMWM, arXiv 2606.01626; Anchored Planning, arXiv 2609.30036), and compete in the search.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from jepa_mpc.settings import Positive, Range
from jepa_mpc.world_model.data.dataset import Dataset, spread
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy


@dataclass(frozen=True)
class RetrievalConfig:
    num_near: Annotated[int, Range(1, 100_000)] = 400
    """Frames nearest to the present one that are looked at."""
    reach: Annotated[int, Range(1, 1000)] = 5
    """Blocks within which what was done should have led to the goal."""
    num_plans: Annotated[int, Range(1, 10_000)] = 64
    """Plans that are proposed, no more than frames are looked at."""
    megabytes: Positive = 8.0
    """How large the file may be, about; of more data, episodes are left out evenly."""


class Retrieval(LatentPolicy):
    """N frames of the data: embeddings z (N, D), the blocks begun at them (N, A), and how many frames of its episode
    follow each (N,).

    Notable: frames are near by latent distance, whatever the objective, and how they moved is not looked at.
    """

    action: Tensor
    left: Tensor

    def __init__(self, num_frames: int, embed_dim: int, action_dim: int, config: RetrievalConfig):
        super().__init__()
        self.embed_dim, self.action_dim, self.reach = embed_dim, action_dim, config.reach
        self.num_near = min(config.num_near, num_frames)
        self.num_plans = min(config.num_plans, self.num_near)
        self.z = nn.Parameter(torch.zeros(num_frames, embed_dim), requires_grad=False)  # stored in half, as weights are
        self.register_buffer("action", torch.zeros(num_frames, action_dim))
        self.register_buffer("left", torch.zeros(num_frames, dtype=torch.int64))

    def plans(self, z_before, z, z_goal, horizon, foresee):
        """Returns K plans (B, K, H, A). Of the `num_near` frames most like the present one it takes those whose next
        `reach` blocks came nearest to the goal, best first, equals in any order. After an episode's end its last block
        is repeated.
        """
        idle = self.left == 0  # nothing was done from an episode's end on
        near = self._away(z).masked_fill(idle, torch.inf).topk(self.num_near, largest=False).indices
        later = self._ahead(near, torch.arange(1, self.reach + 1, device=z.device))  # (B, M, R)
        missed = self._away(z_goal).gather(1, later.flatten(1)).view_as(later).amin(-1)
        best = missed.masked_fill(idle[near], torch.inf).topk(self.num_plans, largest=False).indices
        return self.action[self._ahead(near.gather(1, best), torch.arange(horizon, device=z.device))]

    def is_whole(self) -> bool:
        """Says whether the frames are those of whole episodes, one after another, in which something was done."""
        left = self.left
        in_order = (left[1:] == left[:-1] - 1) | (left[:-1] == 0)
        return bool(len(left) and (left >= 0).all() and (left > 0).any() and in_order.all() and left[-1] == 0)

    @classmethod
    def of(cls, data: Dataset, z: Tensor, config: RetrievalConfig) -> "Retrieval":
        """Returns what remembers training episodes, as many as the size allows, taken evenly, by the embeddings z
        (N, D) of all rows.
        """
        width = 2 * z.shape[1] + 4 * data.action.shape[1] + 8  # bytes a frame
        episodes = data.train_episodes[data.ep_len[data.train_episodes] > data.stride]
        frames = [data.ep_offset[each] + np.arange(0, data.ep_len[each], data.stride) for each in episodes]
        mean = np.mean([len(each) for each in frames])
        kept = spread(np.arange(len(frames)), max(1, int(config.megabytes * 1e6 / (width * mean))))
        rows = np.concatenate([frames[each] for each in kept])
        left = data.blocks_left(rows)
        policy = cls(len(rows), z.shape[1], data.action.shape[1], config)
        action = data.action[np.where(left, rows, rows - data.stride)]  # after the end, the last block again
        policy.z.copy_(z[rows])
        policy.action.copy_(torch.from_numpy(action))
        policy.left.copy_(torch.from_numpy(left))
        return policy

    def _away(self, z: Tensor) -> Tensor:
        """Returns how far embeddings (B, D) are from every frame (B, N), squared, but for what all have in common."""
        return self.z.square().sum(1) - 2 * z @ self.z.T

    def _ahead(self, frames: Tensor, blocks: Tensor) -> Tensor:
        """Returns the frames (..., R) so many blocks (R,) after those (...), or their episodes' last."""
        return frames[..., None] + torch.minimum(blocks, self.left[frames][..., None])
