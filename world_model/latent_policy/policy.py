"""From embeddings straight to actions, without a search: what to do now to get from one picture to another.

Both kinds are regressions on the data's own blocks, with a later frame of the same episode as the goal, and differ in
how much later. The inverse model answers what led from a frame to one a few blocks on (cf. arXiv 2605.08732); goal-
conditioned behaviour cloning imitates whatever was done on the way to any later frame (Ding et al., 2019).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from jepa_mpc.devices import choose_device
from jepa_mpc.files import write_whole
from jepa_mpc.settings import Count, NonNegative, Seed, read, to_json
from jepa_mpc.world_model.checkpoint import weights_digest
from jepa_mpc.world_model.model.encoder import Size
from jepa_mpc.world_model.weights import CheckpointError, fill, half_precision, read_tensors

Kind = Literal["inverse", "gcbc"]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class LatentPolicyInfo:
    """What stands beside the weights."""

    kind: Kind
    task: str
    embed_dim: Size
    action_dim: Size  # A: one action's dimensions times the action block
    hidden: Size
    seed: Seed
    num_steps: Count
    learning_seconds: NonNegative
    encoder: str  # digest of the world model's weights: another's embeddings mean other things
    commit: str
    format_version: int = FORMAT_VERSION


class LatentPolicy(nn.Module):
    """An MLP from the embeddings one block ago, of now, and of the goal (B, D) each, to a block of actions (B, A)."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, embed_dim: int, action_dim: int, hidden: int = 512):
        super().__init__()
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


def save_latent_policy(path: Path, policy: LatentPolicy, info: LatentPolicyInfo) -> None:
    """Writes one file, whole or not at all; weights in half precision."""
    write_whole(path, save(half_precision(policy), {"info": json.dumps(to_json(info))}))


def load_latent_policy(path: Path, checkpoint: Path, device: str = "cpu") -> tuple[LatentPolicy, LatentPolicyInfo]:
    """Returns the policy in evaluation mode, for the world model of that checkpoint.

    Raises `UserError` if it is missing, damaged, or was trained on another encoder.
    """
    if not path.is_file():
        raise CheckpointError(f"no policy at {path}; train one with `jepa-mpc train-latent-policy`")
    tensors, metadata = read_tensors(path)
    try:
        stored = json.loads(metadata.get("info", "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"policy {path} is damaged ({error}); delete it and train it again") from error
    version = stored.get("format_version") if isinstance(stored, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"policy {path} has format {version}, this version reads {FORMAT_VERSION}; train it again"
        )
    info = read(LatentPolicyInfo, stored, f"policy {path} is damaged")
    if info.encoder != weights_digest(checkpoint):
        raise CheckpointError(f"policy {path} was trained on another encoder than {checkpoint}'s; train it again")
    with torch.device("meta"):  # nothing is allocated by what the file declares
        policy = LatentPolicy(info.embed_dim, info.action_dim, info.hidden)
    fill(policy, tensors, path)
    return policy.to(choose_device(device)).eval().requires_grad_(False), info
