"""A policy's one file: its weights, and what it is of."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from jepa_mpc.devices import choose_device
from jepa_mpc.files import write_whole
from jepa_mpc.settings import Count, Natural, NonNegative, Seed, read, to_json
from jepa_mpc.world_model.checkpoint import load_info, weights_digest
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy, Regression
from jepa_mpc.world_model.latent_policy.retrieval import Retrieval, RetrievalConfig
from jepa_mpc.world_model.model.encoder import Size
from jepa_mpc.world_model.weights import CheckpointError, fill, half_precision, read_tensors

Kind = Literal["inverse", "gcbc", "retrieval"]
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
    reach: Count = 5
    num_frames: Natural = 0  # of retrieval, which has neither hidden layers nor steps
    retrieval: RetrievalConfig = RetrievalConfig()
    format_version: int = FORMAT_VERSION

    def make(self) -> LatentPolicy:
        """Returns the policy without its weights."""
        if self.kind == "retrieval":
            return Retrieval(self.num_frames, self.embed_dim, self.action_dim, self.retrieval)
        return Regression(self.embed_dim, self.action_dim, self.hidden)


def save_latent_policy(path: Path, policy: LatentPolicy, info: LatentPolicyInfo) -> None:
    """Writes one file, whole or not at all; weights in half precision."""
    write_whole(path, save(half_precision(policy), {"info": json.dumps(to_json(info))}))


def policy_digest(path: Path, checkpoint: Path) -> str:
    """Returns what tells a checkpoint's policy from the next. Raises `UserError`, which says what makes one, if it is
    missing.
    """
    if not path.is_file():
        told = {"task": load_info(checkpoint).task, "kind": path.stem, "checkpoint": str(checkpoint)}
        options = " ".join(f"--{name} {shlex.quote(value)}" for name, value in told.items())
        raise CheckpointError(
            f"no policy at {path}; put there what `jepa-mpc train-latent-policy {options} --output FOLDER` makes, or "
            "say --warm-start none"
        )
    return weights_digest(path.parent, path.name)


def load_latent_policy(path: Path, checkpoint: Path, device: str = "cpu") -> tuple[LatentPolicy, LatentPolicyInfo]:
    """Returns the policy in evaluation mode, for the world model of that checkpoint.

    Raises `UserError` if it is missing, damaged, of another kind than its name says, or trained on another encoder.
    """
    policy_digest(path, checkpoint)  # raises where there is none
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
    if info.kind != path.stem:
        raise CheckpointError(f"policy {path} is of kind {info.kind}; call it {info.kind}.safetensors")
    if info.encoder != weights_digest(checkpoint):
        raise CheckpointError(f"policy {path} was trained on another encoder than {checkpoint}'s; train it again")
    with torch.device("meta"):  # nothing is allocated by what the file declares
        policy = info.make()
    fill(policy, tensors, path)
    if isinstance(policy, Retrieval) and not policy.is_whole():
        raise CheckpointError(f"policy {path} is damaged (its frames are not those of whole episodes); train it again")
    return policy.to(choose_device(device)).eval().requires_grad_(False), info
