"""From a checkpoint and its data to a policy on its embeddings: `python world_model/latent_policy/train.py`.

The encoder stays as it is. A training that was killed goes on where its last saved state left it.
"""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from jepa_mpc.world_model.checkpoint import CheckpointError, git_commit, load_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError
from jepa_mpc.world_model.latent_policy.policy import Kind, LatentPolicy, LatentPolicyInfo, save_latent_policy
from jepa_mpc.world_model.training.diagnostics import encode_rows
from jepa_mpc.world_model.training.loop import LoopConfig, Phase, StepLoss, TrainError, run_phases


@dataclass(frozen=True)
class LatentPolicyConfig:
    """Train a policy that reads embeddings and a goal's, and answers with a block of actions."""

    output: Path
    """Folder for the policy, the logs and the state to resume from."""
    kind: Kind = "inverse"
    """How far ahead the goals lie: within `reach` blocks, or anywhere in the rest of the episode."""
    task: str = "reacher"
    """Task of checkpoint and data."""
    checkpoint: Path | None = None
    """World model whose encoder is used; `checkpoints/<task>` unless given."""
    data: Path | None = None
    """HDF5 data set; `data/<task>.h5` unless given."""
    seed: int = 0
    num_steps: int = 5_000
    batch_size: int = 512
    """Transitions in a step."""
    reach: int = 5
    """inverse: goals lie 1 to this many blocks ahead."""
    hidden: int = 512
    learning_rate: float = 1e-3
    save_every: int = 1000
    """Steps between states to resume from."""


def sample_goals(config: LatentPolicyConfig, data: Dataset, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row (B,) a later one of its episode."""
    left = data.blocks_left(rows)
    furthest = left if config.kind == "gcbc" else np.minimum(config.reach, left)
    return rows + data.stride * rng.integers(1, furthest + 1)


def policy_phase(config: LatentPolicyConfig, policy: LatentPolicy, data: Dataset, z: Tensor) -> Phase:
    """Regression on the blocks that were done, in the embeddings z (N, D) of all rows."""
    action = torch.from_numpy(data.action)

    def load(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        before, now, _ = data.sample_rows(config.batch_size, 3, rng).T
        return before, now, sample_goals(config, data, now, rng)

    def step_loss(step: int, batch: tuple[np.ndarray, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        before, now, goal = batch
        wanted = (action[now] - policy.action_mean) / policy.action_std
        loss = F.mse_loss(policy.standardised(z[before], z[now], z[goal]), wanted)
        return loss, {"policy": loss}

    def begin() -> StepLoss:
        return step_loss

    return Phase("policy", config.num_steps, config.learning_rate, policy, load, begin)


def train(config: LatentPolicyConfig) -> Path:
    """Trains, and returns the policy's file. Goes on from a saved state; a finished one is left alone."""
    for option in ("num_steps", "batch_size", "reach", "hidden", "save_every"):
        if (value := getattr(config, option)) < 1:
            raise TrainError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    if config.seed < 0:
        raise TrainError(f"--seed must be at least 0, not {config.seed}")
    if not config.learning_rate > 0:
        raise TrainError(f"--learning-rate must be above 0, not {config.learning_rate}")
    path = config.output / f"{config.kind}.safetensors"
    checkpoint = config.checkpoint or Path("checkpoints") / config.task
    model, _ = load_checkpoint(checkpoint, task=config.task)
    settings = {**json.loads(json.dumps(asdict(config), default=str)), "encoder": weights_digest(checkpoint)}
    settings_path = config.output / "settings.json"
    if settings_path.exists() and json.loads(settings_path.read_text()) != settings:
        raise TrainError(f"{config.output} holds a training with other settings; choose another --output")
    if path.exists():
        return path
    data = Dataset(config.data or Path("data") / f"{config.task}.h5", task=config.task)
    config.output.mkdir(parents=True, exist_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n")

    torch.manual_seed(config.seed)
    policy = LatentPolicy(model.config.embed_dim, model.config.action_dim, config.hidden)
    policy.action_mean.copy_(model.action_mean)
    policy.action_std.copy_(model.action_std)
    phase = policy_phase(config, policy, data, encode_rows(model, data, np.arange(len(data.pixels))))
    loop = LoopConfig(config.seed, 1e-3, 100, 1.0, 20, config.num_steps, config.save_every)
    progress = run_phases([phase], policy, config.output, loop)
    info = LatentPolicyInfo(
        kind=config.kind,
        task=config.task,
        embed_dim=model.config.embed_dim,
        action_dim=model.config.action_dim,
        hidden=config.hidden,
        seed=config.seed,
        num_steps=config.num_steps,
        learning_seconds=round(progress.seconds, 1),
        encoder=settings["encoder"],
        commit=git_commit(),
    )
    save_latent_policy(path, policy, info)
    return path


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(LatentPolicyConfig)
    try:
        print(f"wrote {train(config)}")  # noqa: T201
    except (TrainError, CheckpointError, DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last saved state")


if __name__ == "__main__":
    main()
