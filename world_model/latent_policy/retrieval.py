"""What was done in the data where things stood as they do now, and led to what is wanted.

A search over many numbers a block seldom finds a grasp; the data hold hundreds. They are looked up by their embeddings
(cf. IMWM, arXiv 2606.01626; Anchored Planning, arXiv 2609.30036), and compete in the search.
"""

import numpy as np
import torch
from torch import Tensor, nn

from jepa_mpc.world_model.data.dataset import Dataset, spread
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy


class Retrieval(LatentPolicy):
    """N frames of the data: embeddings z (N, D), the blocks begun at them (N, A), and how many frames of its episode
    follow each (N,).

    Args:
        num_near: frames nearest to the present one that are looked at.
        reach: blocks within which what was done should have led to the goal.
        num_plans: plans that are proposed.
    """

    left: Tensor

    def __init__(self, num_frames: int, embed_dim: int, action_dim: int, num_near: int, reach: int, num_plans: int):
        super().__init__()
        self.num_near, self.num_plans = min(num_near, num_frames), min(num_plans, num_frames)
        self.reach = reach
        self.z = nn.Parameter(torch.zeros(num_frames, embed_dim), requires_grad=False)  # stored as weights are
        self.action = nn.Parameter(torch.zeros(num_frames, action_dim), requires_grad=False)
        self.register_buffer("left", torch.zeros(num_frames, dtype=torch.int64))

    def plans(self, z_before, z, z_goal, horizon, foresee):
        """Returns, of the frames nearest to the present, what was done from those on that soon came nearest to the
        goal; behind an episode's end its last block goes on.
        """
        away = self.z.square().sum(1) - 2 * z @ self.z.T  # squared, but for what all have in common
        away = away.masked_fill(self.left == 0, torch.inf)  # nothing was done from an episode's end on
        near = away.topk(self.num_near, largest=False).indices
        later = self.z[self._ahead(near, torch.arange(1, self.reach + 1, device=z.device))]  # (B, M, R, D)
        missed = (later - z_goal[:, None, None]).norm(dim=-1).amin(-1)
        best = near.gather(1, missed.topk(self.num_plans, largest=False).indices)
        return self.action[self._ahead(best, torch.arange(horizon, device=z.device))]

    def is_whole(self) -> bool:
        """Says whether every episode ends within the frames."""
        row = torch.arange(len(self.left))
        return bool(((self.left >= 0) & (row + self.left < len(row))).all())

    @classmethod
    def of(cls, data: Dataset, z: Tensor, megabytes: float, num_near: int, reach: int, num_plans: int) -> "Retrieval":
        """Remembers training episodes, evenly so many of them as the size allows, by the embeddings z (N, D) of all
        rows.
        """
        width = 2 * (z.shape[1] + data.action.shape[1]) + 8  # bytes a frame, in half precision
        episodes = data.train_episodes[data.ep_len[data.train_episodes] > data.stride]
        frames = [data.ep_offset[each] + np.arange(0, data.ep_len[each], data.stride) for each in episodes]
        mean = np.mean([len(each) for each in frames])
        kept = spread(np.arange(len(frames)), max(1, int(megabytes * 1e6 / (width * mean))))
        rows = np.concatenate([frames[each] for each in kept])
        policy = cls(len(rows), z.shape[1], data.action.shape[1], num_near, reach, num_plans)
        left = data.blocks_left(rows)
        action = data.action[np.where(left, rows, rows - data.stride)]  # behind the end, the last block goes on
        policy.z.copy_(z[rows])
        policy.action.copy_(torch.from_numpy(action))
        policy.left.copy_(torch.from_numpy(left))
        return policy

    def _ahead(self, frames: Tensor, blocks: Tensor) -> Tensor:
        """Returns the frames (..., R) so many blocks (R,) behind those (...), or their episodes' last."""
        return frames[..., None] + torch.minimum(blocks, self.left[frames][..., None])
