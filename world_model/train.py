"""From a data set to a checkpoint: `python world_model/train.py --task reacher --output FOLDER`.

`torchrun --nproc-per-node N world_model/train.py ...` trains the same model by N processes. Three phases: encoder and
predictor together, then on frozen embeddings the predictor alone, then the reachability metric. A training that was
killed goes on exactly where its last saved state left it, with the same command.
"""

import argparse
import copy
import dataclasses
import json
import logging
import operator
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

from jepa_mpc.devices import choose_device
from jepa_mpc.distributed import num_ranks, process_group, rank, wait_for_all
from jepa_mpc.world_model.checkpoint import CheckpointInfo, git_commit, save_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError
from jepa_mpc.world_model.data.frames import Frames
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.regularizers.base import REGULARIZERS, Regularizer
from jepa_mpc.world_model.regularizers.guard import CollapseGuard
from jepa_mpc.world_model.training.config import PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import report_embedding
from jepa_mpc.world_model.training.loop import LoopConfig, TrainError, run_phases
from jepa_mpc.world_model.training.phases import (
    CALIBRATION_BATCH,
    FrozenEmbeddings,
    Watch,
    joint_phase,
    predictor_phase,
    reachability_phase,
    recalibrate_batchnorm,
)

log = logging.getLogger(__name__)

_MEANS = ("output", "in_memory", "num_workers", "compile")  # settings that do not change what is learned


def _what_decides(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _MEANS}


def _build(config: TrainConfig, data: Dataset, device: torch.device) -> tuple[JEPA, Regularizer]:
    torch.manual_seed(config.seed)
    regularizer = REGULARIZERS[config.regularizer]
    size = data.pixels.shape[1]
    model = JEPA(
        JEPAConfig(
            data.action.shape[1],
            config.embed_dim,
            config.projector_hidden,
            dataclasses.replace(config.encoder, image_size=size),
            config.predictor,
            config.reachability if config.reachability_steps else None,
            regularizer.spherical,
            config.projector_activation,
        )
    )
    mean, std = data.action_stats()
    model.action_mean.copy_(torch.from_numpy(mean))
    model.action_std.copy_(torch.from_numpy(std))
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recalibrate_batchnorm(model, data, num_batches=4)  # so that the report before the first step is true
    if config.compile:
        model.encoder.compile()
    return model, regularizer(getattr(config, config.regularizer, None), model).to(device)


def dataset_paths(config: TrainConfig) -> tuple[Path, ...]:
    """Where a training's data lie."""
    return config.data or (Path("data") / f"{config.task}.h5",)


def _check(config: TrainConfig) -> None:
    """Raises `TrainError` on settings that cannot be served."""
    least = {
        "seed": 0,
        "num_steps": 1,
        "predictor_steps": 0,
        "reachability_steps": 0,
        "batch_size": 2,
        "num_frames": 2,
        "predictor_batch_size": 1,
        "predictor_num_frames": 2,
        "report_frames": 2,
        "reachability_batch_size": 2,
        "num_workers": 0,
        "max_context": 1,
        "sigreg.knots": 2,
        "sigreg.num_proj": 1,
        "moco.queue_size": 1,
    }
    for option, minimum in least.items():
        if (value := operator.attrgetter(option)(config)) < minimum:
            raise TrainError(f"--{option.replace('_', '-')} must be at least {minimum}, not {value}")
    if config.frameskip is not None and config.frameskip < 1:
        raise TrainError(f"--frameskip must be at least 1, not {config.frameskip}")
    for option in ("discount", "expectile", "target_rate", "ema.rate", "moco.rate"):
        if not 0 < (value := operator.attrgetter(option)(config)) < 1:
            raise TrainError(f"--{option.replace('_', '-')} must lie between 0 and 1, not {value}")
    for option in ("simclr.temperature", "moco.temperature"):
        if not (value := operator.attrgetter(option)(config)) > 0:
            raise TrainError(f"--{option} must be above 0, not {value}")
    for option in ("batch_size", "predictor_batch_size", "reachability_batch_size"):
        if (value := getattr(config, option)) % num_ranks():
            raise TrainError(
                f"--{option.replace('_', '-')} {value} cannot be shared evenly by {num_ranks()} processes; change one"
            )
    if CALIBRATION_BATCH % num_ranks():
        raise TrainError(f"the number of processes must divide {CALIBRATION_BATCH}, which {num_ranks()} does not")


def train(config: TrainConfig, data: Dataset | None = None, watch: Watch | None = None) -> Path:
    """Trains, and returns the checkpoint's folder. Goes on from a saved state; a finished folder is left alone.

    Args:
        config: the settings.
        data: the data set that they name, where it is in memory already.
        watch: called with model, data and step, before the first step of the joint phase and with its every report.
    """
    _check(config)
    settings = _what_decides(json.loads(json.dumps(asdict(config), default=str)))
    settings_path = config.output / "settings.json"
    if settings_path.exists() and _what_decides(json.loads(settings_path.read_text())) != settings:
        raise TrainError(f"{config.output} holds a training with other settings; choose another --output")
    if (config.output / "config.json").exists():
        log.info("%s is finished already", config.output)
        return config.output

    device = choose_device(config.device)
    if data is None:
        paths, skip = dataset_paths(config), config.frameskip
        data = Dataset(paths, task=config.task, in_memory=config.in_memory, frameskip=skip)
    wait_for_all()  # until everyone has seen what is there
    if rank() == 0:
        config.output.mkdir(parents=True, exist_ok=True)
        settings_path.write_text(json.dumps(settings, indent=2) + "\n")
    model, regularizer = _build(config, data, device)
    guard = CollapseGuard()
    weights = nn.ModuleDict({"model": model, "regularizer": regularizer, "guard": guard})
    frozen = FrozenEmbeddings(model, data)
    joint = joint_phase(config, model, regularizer, guard, data, watch)
    phases = [joint, predictor_phase(config, model, data, frozen)]
    if model.reachability is not None:
        weights["target"] = target = copy.deepcopy(model.reachability)
        phases.append(reachability_phase(config, model, target, data, frozen))
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(LoopConfig)}
    if not isinstance(data.pixels, Frames):
        shared["num_workers"] = 0  # there is nothing to wait for
    progress = run_phases(phases, weights, config.output, LoopConfig(**shared))

    if not (config.predictor_steps or config.reachability_steps):  # those begin with it
        recalibrate_batchnorm(model, data)
    if rank() > 0:
        wait_for_all()
        return config.output
    report = report_embedding(model, data, num_frames=5000)
    info = CheckpointInfo(
        task=config.task,
        model=model.config,
        data={**vars(data.info), "angles": list(data.info.angles), "num_episodes": len(data.ep_len)},
        training={name: value for name, value in settings.items() if name != "data"},
        commit=git_commit(),
        learning_seconds=round(progress.seconds, 1),
        metrics={"loss": progress.losses, "embedding": report._asdict()},
        collapsed=guard.verdict(),
    )
    save_checkpoint(config.output, model, info)
    wait_for_all()
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
        with process_group(choose_device(config.device)):
            folder = train(config)
    except (TrainError, DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last saved state")
    if int(os.environ.get("RANK", 0)) > 0:
        return
    metrics = json.loads((folder / "config.json").read_text())["metrics"]["embedding"]
    print(f"wrote {folder}: {json.dumps(metrics)}")  # noqa: T201


if __name__ == "__main__":
    main()
