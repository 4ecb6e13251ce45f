"""From a checkpoint and its data to a policy on its embeddings: `jepa-mpc train-latent-policy --output FOLDER`.

The encoder stays as it is. A training that was killed goes on where its last saved state left it.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-latent-policy")

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_mpc import places
from jepa_mpc.cli import parse
from jepa_mpc.files import claimed
from jepa_mpc.provenance import git_commit
from jepa_mpc.settings import Count, Positive, Seed, checked, to_json
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import UNUSED, Dataset
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy, Regression
from jepa_mpc.world_model.latent_policy.retrieval import Retrieval, RetrievalConfig
from jepa_mpc.world_model.latent_policy.stored import Kind, LatentPolicyInfo, save_latent_policy
from jepa_mpc.world_model.model.encoder import Size
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.training.diagnostics import encode_rows
from jepa_mpc.world_model.training.loop import LoopConfig, Phase, run_phases
from jepa_mpc.world_model.training.state import TrainError

# Settings that do not change what is learned; what lies there does.
_FREE = ("output", "checkpoint", "data", "save_every")
_STORED = ("kind", "task", "hidden", "seed", "num_steps", "reach", "retrieval")  # in the policy's file
_OF_REGRESSIONS = ("num_steps", "batch_size", "reach", "hidden", "learning_rate")


@dataclass(frozen=True)
class LatentPolicyConfig:
    """Train a policy that reads embeddings and a goal's, and answers with a block of actions."""

    output: Path
    """Folder for the policy, the logs and the state to resume from."""
    kind: Kind = "inverse"
    """How far ahead the goals lie, within `reach` blocks (inverse) or anywhere in the rest of the episode (gcbc); or
    retrieval, which learns nothing but looks up what was done."""
    task: str = "reacher"
    """Task of checkpoint and data."""
    checkpoint: Path | None = None
    """World model whose encoder is used, a folder or a bundled one's name; the task's bundled one unless given."""
    data: tuple[Path, ...] = ()
    """HDF5 files, which make one data set; `data/TASK.h5` under the home unless given."""
    seed: Seed = 0
    num_steps: Count = 5_000
    batch_size: Count = 512
    """Transitions in a step."""
    reach: Count = 5
    """inverse: goals lie 1 to this many blocks ahead."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """Settings of that kind."""
    hidden: Size = 512
    learning_rate: Positive = 1e-3
    save_every: Count = 1000
    """Steps between states to resume from."""


def policy_phase(
    config: LatentPolicyConfig, policy: Regression, data: Dataset, z: Tensor, z_goal: Tensor | None = None
) -> Phase:
    """Fits the blocks that were done, in the embeddings z (N, D) of all rows; as goals these may have others (N, D)."""
    z_goal = z if z_goal is None else z_goal
    action = torch.from_numpy(data.action)

    def load(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        before, now, _ = data.sample_rows(config.batch_size, 3, rng).T
        return before, now, data.sample_future(now, rng, 1, config.reach if config.kind == "inverse" else None)

    def step_loss(step: int, batch: tuple[np.ndarray, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        before, now, goal = batch
        wanted = (action[now] - policy.action_mean) / policy.action_std
        loss = F.mse_loss(policy.standardised(z[before], z[now], z_goal[goal]), wanted)
        return loss, {"policy": loss}

    return Phase("policy", config.num_steps, config.learning_rate, policy, load, lambda: step_loss)


def train(config: LatentPolicyConfig) -> Path:
    """Trains, and returns the policy's file. Goes on from a saved state; a finished one is left alone."""
    config = checked(config)
    _refuse_unused(config)
    path = config.output / f"{config.kind}.safetensors"
    checkpoint = places.checkpoint(config.checkpoint or config.task)
    model, info = load_checkpoint(checkpoint, task=config.task)
    data = Dataset(config.data or [places.dataset(config.task)], task=config.task)
    (_, *size, _), block = data.pixels.shape, data.action.shape[1]
    wanted, numbers = model.config.encoder.picture_size, model.config.action_dim
    if tuple(size) != wanted or block != numbers:
        raise TrainError(
            f"{checkpoint} takes pictures of {wanted} and blocks of {numbers} numbers, and the data have {size} and "
            f"{block}; name its own data"
        )
    data.sample_rows(1, 3, np.random.default_rng(0))  # raises where no episode is that long
    if config.kind == "retrieval" and model.config.is_multimodal:
        raise TrainError("--kind retrieval compares single pictures, and this model is told more; use inverse or gcbc")
    encoder = weights_digest(checkpoint)
    free = (*_FREE, "seed" if config.kind == "retrieval" else "retrieval")  # which draws nothing; which is not there
    with claimed(config.output, {**to_json(config), "encoder": encoder, "episodes": data.fingerprint()}, free):
        if path.exists():
            return path
        z = encode_rows(model, data, np.arange(len(data.pixels)))
        policy: LatentPolicy
        if config.kind == "retrieval":
            policy, seconds = Retrieval.of(data, z, config.retrieval), 0.0
        else:
            dropout = info.training.get("modality_dropout", 0.0)
            policy, seconds = _regress(config, model, data, z, dropout)
        settings = {name: getattr(config, name) for name in _STORED} | {"encoder": encoder}
        settings |= {"embed_dim": model.config.embed_dim, "action_dim": model.config.action_dim}
        if isinstance(policy, Retrieval):
            settings |= {"num_frames": len(policy.left)}
        about = LatentPolicyInfo(**settings, learning_seconds=round(seconds, 1), commit=git_commit())
        save_latent_policy(path, policy, about)
    return path


def _refuse_unused(config: LatentPolicyConfig) -> None:
    usual = LatentPolicyConfig(config.output)
    for name in _OF_REGRESSIONS if config.kind == "retrieval" else ("retrieval",):
        if getattr(config, name) != getattr(usual, name):
            raise TrainError(f"--{name.replace('_', '-')} is nothing to --kind {config.kind}; leave it out")


def _regress(
    config: LatentPolicyConfig, model: JEPA, data: Dataset, z: Tensor, dropout: float
) -> tuple[Regression, float]:
    """Returns a policy that has learned from the embeddings z (N, D) of all rows, and in how many seconds; as goals,
    observations lack parts as often as `dropout` says.
    """
    torch.manual_seed(config.seed)
    policy = Regression(model.config.embed_dim, model.config.action_dim, config.hidden)
    policy.action_mean.copy_(model.action_mean)
    # Of an action that never varied, all that need be said is its mean.
    policy.action_std.copy_(torch.where(model.action_std < float(UNUSED), model.action_std, 1.0))
    z_goal = z
    if model.config.is_multimodal:
        z_goal = encode_rows(model, data, np.arange(len(z)), dropout=dropout)
    phase = policy_phase(config, policy, data, z, z_goal)
    pace = {"log_every": 20, "report_every": config.num_steps, "save_every": config.save_every}
    loop = LoopConfig(seed=config.seed, weight_decay=1e-3, warmup_steps=100, grad_clip=1.0, **pace)
    return policy, run_phases([phase], policy, config.output, loop).seconds


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(LatentPolicyConfig, args))}")  # noqa: T201
