"""From a data set to a checkpoint: `python world_model/train.py --task reacher --output FOLDER`.

Step n draws its windows and directions from generators seeded by (seed, n) alone, so a training that was killed
goes on exactly where its last saved state left it, with the same command.
"""

import argparse
import dataclasses
import json
import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from world_model.checkpoint import CheckpointInfo, git_commit, save_checkpoint
from world_model.dataset import Dataset, DatasetError
from world_model.diagnostics import report_embedding
from world_model.encoder import EncoderConfig
from world_model.jepa import JEPA, JEPAConfig
from world_model.predictor import PredictorConfig
from world_model.sigreg import SIGReg

log = logging.getLogger(__name__)


class TrainError(Exception):
    """A training that cannot start; the message is one line that names the fix."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a world model from a data set."""

    output: Path
    """Folder for the checkpoint, the logs and the state to resume from."""
    task: str = "reacher"
    """Task that the data set must be of."""
    data: Path | None = None
    """HDF5 data set; `data/<task>.h5` unless given."""
    preset: Literal["default", "debug"] = "default"
    """Settings to start from; options given beside it win."""
    seed: int = 0
    """Decides the initial weights, the order of the windows and SIGReg's directions."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 multiplies where the hardware does so natively (auto)."""
    num_steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 64
    """Windows in a step; SIGReg's weight is tied to it."""
    num_frames: int = 8
    """Frames in a window."""
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    """Linear warm-up, before the cosine decay to zero."""
    grad_clip: float = 1.0
    sigreg_weight: float = 0.2
    """λ, the weight of SIGReg beside the prediction error."""
    rollout_weight: float = 1.0
    """Weight of the open-loop rollout error; 0 leaves LeWorldModel's two-term loss."""
    max_context: int = 3
    """An open-loop rollout starts from 1 to this many real frames."""
    num_proj: int = 256
    """SIGReg's random directions."""
    knots: int = 17
    """SIGReg's trapezoid knots."""
    embed_dim: int = 64
    projector_hidden: int = 512
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    log_every: int = 20
    """Steps between loss records."""
    report_every: int = 250
    """Steps between embedding reports on held-out episodes."""
    save_every: int = 250
    """Steps between states to resume from."""


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Seconds, for tests: every part runs, nothing is learned well.
    "debug": {
        "num_steps": 30,
        "batch_size": 8,
        "warmup_steps": 5,
        "num_proj": 64,
        "embed_dim": 16,
        "projector_hidden": 32,
        "encoder": EncoderConfig(channels=(4, 8, 8, 8)),
        "predictor": PredictorConfig(width=16, depth=1, num_heads=2),
        "report_every": 10,
        "save_every": 10,
    },
}


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" the best there is; ValueError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not available.get(device.type) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise ValueError(f"device {name!r} is not there; this machine has: {there}")
    return device


def _uses_bfloat16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _learning_rate_factor(step: int, config: TrainConfig) -> float:
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / config.num_steps))


@torch.no_grad()
def recalibrate_batchnorm(model: JEPA, data: Dataset, num_batches: int = 50, batch_size: int = 256) -> None:
    """Replaces BatchNorm's running statistics with plain averages over training pictures under the final weights.

    Running averages trail the weights, which inflates evaluation error (arXiv 2608.10145).
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    rng, device = np.random.default_rng(0), model.action_mean.device
    model.train()
    for _ in range(num_batches):
        pixels, _ = data.sample_windows(batch_size, 1, rng)
        model.encode(pixels.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _build(config: TrainConfig, data: Dataset, device: torch.device) -> JEPA:
    torch.manual_seed(config.seed)
    size = data.pixels.shape[1]
    model = JEPA(
        JEPAConfig(
            data.action.shape[1],
            config.embed_dim,
            config.projector_hidden,
            dataclasses.replace(config.encoder, image_size=size),
            config.predictor,
        )
    )
    mean, std = data.action_stats()
    model.action_mean.copy_(torch.from_numpy(mean))
    model.action_std.copy_(torch.from_numpy(std))
    return model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def _save_state(path: Path, model: JEPA, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    """Weights and the optimiser's moments, in full precision, to resume from."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(
        save(
            {name: value.contiguous() for name, value in tensors.items()},
            metadata={"step": str(step), "seconds": str(seconds)},
        )
    )
    os.replace(unfinished, path)


def _load_state(path: Path, model: JEPA, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Puts a saved state back; returns the steps done and the seconds that they took."""
    weights: dict[str, torch.Tensor] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            for key in file.keys():  # noqa: SIM118 (no mapping)
                kind, _, rest = key.partition("/")
                if kind == "model":
                    weights[rest] = file.get_tensor(key)
                else:
                    index, name = rest.split("/")
                    moments.setdefault(int(index), {})[name] = file.get_tensor(key)
        model.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return int(metadata["step"]), float(metadata["seconds"])
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TrainError(f"{path} is damaged; delete it to start afresh") from error


def train(config: TrainConfig) -> Path:
    """Trains, and returns the checkpoint's folder. Goes on from a saved state; a finished folder is left alone."""
    for option, least in {
        "seed": 0,
        "num_steps": 1,
        "batch_size": 2,
        "max_context": 1,
        "knots": 2,
        "num_proj": 1,
    }.items():
        if (value := getattr(config, option)) < least:
            raise TrainError(f"--{option.replace('_', '-')} must be at least {least}, not {value}")
    if config.num_frames <= config.max_context:
        raise TrainError(f"--num-frames must exceed --max-context ({config.max_context}), not {config.num_frames}")
    data_path = config.data or Path("data") / f"{config.task}.h5"
    settings = json.loads(json.dumps(asdict(config), default=str))
    state_path, settings_path = config.output / "state.safetensors", config.output / "settings.json"
    if settings_path.exists() and json.loads(settings_path.read_text()) != settings:
        raise TrainError(f"{config.output} holds a training with other settings; choose another --output")
    if (config.output / "config.json").exists():
        log.info("%s is finished already", config.output)
        return config.output

    started = time.monotonic()
    device = choose_device(config.device)
    data = Dataset(data_path, task=config.task)
    config.output.mkdir(parents=True, exist_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n")
    model = _build(config, data, device)
    sigreg = SIGReg(config.num_proj, config.knots).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=_uses_bfloat16(config.precision, device))

    first_step, earlier_seconds = 0, 0.0
    if state_path.exists():
        first_step, earlier_seconds = _load_state(state_path, model, optimizer)
        log.info("going on from step %d", first_step)

    def seconds() -> float:
        return earlier_seconds + time.monotonic() - started

    writer = SummaryWriter(str(config.output / "tensorboard"), purge_step=first_step)
    losses: dict[str, float] = {}
    bar = tqdm(range(first_step, config.num_steps), initial=first_step, total=config.num_steps, desc="training")
    for step in bar:
        rng = np.random.default_rng([config.seed, step])
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        pixels, actions = data.sample_windows(config.batch_size, config.num_frames, rng)
        num_context = int(rng.integers(1, config.max_context + 1))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _learning_rate_factor(step, config)
        with autocast:
            terms = model.loss_terms(pixels.to(device), actions.to(device), sigreg, num_context, generator)
        loss = terms.prediction + config.rollout_weight * terms.rollout + config.sigreg_weight * terms.sigreg
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        if not torch.isfinite(loss):
            raise TrainError(f"the loss is not finite at step {step}; lower --learning-rate or use --precision float32")
        optimizer.step()

        done = step + 1
        if done % config.log_every == 0 or done == config.num_steps:
            losses = {name: value.item() for name, value in terms._asdict().items()}
            for name, value in {**losses, "grad_norm": float(grad_norm)}.items():
                writer.add_scalar(f"loss/{name}", value, done)
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
        if done % config.report_every == 0:
            report = report_embedding(model, data, num_episodes=25)
            writer.add_scalar("embedding/std", report.std, done)
            writer.add_scalar("embedding/effective_rank", report.effective_rank, done)
            for name, value in report.probe_r2.items():
                writer.add_scalar(f"probe_r2/{name}", value, done)
        if done % config.save_every == 0 or done == config.num_steps:
            _save_state(state_path, model, optimizer, done, seconds())

    recalibrate_batchnorm(model, data)
    report = report_embedding(model, data, num_episodes=100)
    writer.close()
    info = CheckpointInfo(
        task=config.task,
        model=model.config,
        data={**vars(data.info), "angles": list(data.info.angles), "num_episodes": len(data.ep_len)},
        training=settings,
        commit=git_commit(),
        learning_seconds=round(seconds(), 1),
        metrics={"loss": losses, "embedding": report._asdict()},
    )
    save_checkpoint(config.output, model, info)
    return config.output


def parse_config() -> TrainConfig:
    """Command-line options over the chosen preset."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=PRESETS, default="default")
    preset = parser.parse_known_args()[0].preset
    return tyro.cli(TrainConfig, default=TrainConfig(output=tyro.MISSING, preset=preset, **PRESETS[preset]))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse_config()
    try:
        folder = train(config)
    except (TrainError, DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last saved state")
    metrics = json.loads((folder / "config.json").read_text())["metrics"]["embedding"]
    print(f"wrote {folder}: {json.dumps(metrics)}")  # noqa: T201


if __name__ == "__main__":
    main()
