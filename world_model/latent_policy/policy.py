"""From embeddings straight to actions, without a search: what to do now to get from one picture to another.

Both kinds are regressions on the data's own blocks, with a later frame of the same episode as the goal, and differ in
how much later. The inverse model answers what led from a frame to one a few blocks on (cf. arXiv 2605.08732); goal-
conditioned behaviour cloning imitates whatever was done on the way to any later frame (Ding et al., 2019).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dacite
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from jepa_mpc.files import write_whole
from jepa_mpc.world_model.checkpoint import CheckpointError, half_precision, weights_digest

Kind = Literal["inverse", "gcbc"]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class LatentPolicyInfo:
    """What stands beside the weights."""

    kind: Kind
    task: str
    embed_dim: int
    action_dim: int  # A: one action's dimensions times the action block
    hidden: int
    seed: int
    num_steps: int
    learning_seconds: float
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
        """The block in units of the training data's mean and std."""
        return self.layers(torch.cat([z - z_before, z, z_goal], dim=-1))

    def forward(self, z_before: Tensor, z: Tensor, z_goal: Tensor) -> Tensor:
        """The block in the environment's own units; it may lie outside its bounds."""
        return self.standardised(z_before, z, z_goal) * self.action_std + self.action_mean


def save_latent_policy(path: Path, policy: LatentPolicy, info: LatentPolicyInfo) -> None:
    """One file, whole or not at all; weights in half precision."""
    write_whole(path, save(half_precision(policy), {"info": json.dumps(asdict(info))}))


def load_latent_policy(path: Path, checkpoint: Path, device: str = "cpu") -> tuple[LatentPolicy, LatentPolicyInfo]:
    """The policy in evaluation mode, for the world model of that checkpoint.

    Raises `CheckpointError` if it is missing, damaged, or was trained on another encoder.
    """
    if not path.is_file():
        raise CheckpointError(f"no policy at {path}; train one with `python world_model/latent_policy/train.py`")
    try:
        with safe_open(path, "pt") as file:
            stored: dict[str, Any] = json.loads(file.metadata()["info"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        version = stored["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"policy {path} has format {version}, this version reads {FORMAT_VERSION}; train it again"
            )
        info = dacite.from_dict(LatentPolicyInfo, stored, dacite.Config(strict=True))
        policy = LatentPolicy(info.embed_dim, info.action_dim, info.hidden)
        policy.load_state_dict(weights)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError, dacite.DaciteError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"policy {path} is damaged ({reason}); delete it and train it again") from error
    if info.encoder != weights_digest(checkpoint):
        raise CheckpointError(f"policy {path} was trained on another encoder than {checkpoint}'s; train it again")
    return policy.to(device).eval().requires_grad_(False), info
