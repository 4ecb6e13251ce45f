"""From a data set to a checkpoint: `jepa-mpc train --task reacher --output FOLDER`.

`torchrun --nproc-per-node N -m jepa_mpc train …` trains the same model by N processes. Three phases: encoder and
predictor together, then on frozen embeddings the predictor alone, then the reachability metric. A training that was
killed goes on exactly where its last saved state left it, with the same command.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train")

import copy
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jepa_mpc import places
from jepa_mpc.cli import choose, option_value, parse
from jepa_mpc.devices import choose_device
from jepa_mpc.distributed import claimed_by_first, num_ranks, process_group, rank, wait_for_all
from jepa_mpc.provenance import git_commit
from jepa_mpc.settings import checked, to_json
from jepa_mpc.world_model.checkpoint import CheckpointInfo, Interface, load_info, save_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset, DatasetInfo
from jepa_mpc.world_model.data.frames import Frames
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.regularizers.base import Regularizer
from jepa_mpc.world_model.regularizers.guard import CollapseGuard
from jepa_mpc.world_model.training import phases
from jepa_mpc.world_model.training.card import card, facts
from jepa_mpc.world_model.training.config import PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import report_embedding
from jepa_mpc.world_model.training.loop import LoopConfig, TrainError, run_phases

log = logging.getLogger(__name__)

_MEANS = ("output", "data", "in_memory", "num_workers", "compile")  # settings that do not change what is learned
_FREE = (*_MEANS, "preset", "device", "log_every", "report_every", "report_frames", "save_every")  # nor do these


def model_config(config: TrainConfig, data: Dataset) -> JEPAConfig:
    """Returns the model's settings for those data."""
    return JEPAConfig(
        data.action.shape[1],
        config.embed_dim,
        config.projector_hidden,
        dataclasses.replace(config.encoder, image_size=data.pixels.shape[1]),
        config.predictor,
        config.reachability if config.reachability_steps else None,
        config.regularizer.spherical,
        config.projector_activation,
    )


def build(config: TrainConfig, data: Dataset, device: torch.device) -> tuple[JEPA, Regularizer]:
    """Returns model and regulariser as they are before the first step."""
    torch.manual_seed(config.seed)
    model = JEPA(model_config(config, data))
    mean, std = data.action_stats()
    model.action_mean.copy_(torch.from_numpy(mean))
    model.action_std.copy_(torch.from_numpy(std))
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    phases.recalibrate_batchnorm(model, data, num_batches=4)  # so that the report before the first step is true
    if config.compile:
        model.encoder.compile()
    return model, config.regularizer.make(model).to(device)


def dataset_paths(config: TrainConfig) -> tuple[Path, ...]:
    """Returns where a training's data lie."""
    return config.data or (places.dataset(config.task),)


def _check_shares(config: TrainConfig) -> None:
    """Raises `TrainError` if the processes cannot share every batch evenly."""
    steps = {"": config.num_steps, "predictor_": config.predictor_steps, "reachability_": config.reachability_steps}
    sizes = {f"{phase}batch_size": getattr(config, f"{phase}batch_size") for phase, num in steps.items() if num}
    if odd := [f"--{name.replace('_', '-')} {size}" for name, size in sizes.items() if size % num_ranks()]:
        counts = [str(n) for n in range(1, 65) if not any(size % n for size in sizes.values())]
        raise TrainError(
            f"{num_ranks()} processes cannot share {' and '.join(odd)} evenly; change that, or start "
            f"{' or '.join(counts)}"
        )


def _require_fit(config: TrainConfig, data: Dataset) -> None:
    """Raises `UserError` if model, windows and data do not fit each other, before a folder is claimed."""
    if data.pixels.shape[1] != data.pixels.shape[2]:
        raise TrainError(f"pictures must be square, not {data.pixels.shape[1:]}; write the data set again")
    with torch.device("meta"):
        JEPA(model_config(config, data))
    windows = {"--num-frames": config.num_frames}
    windows |= {"--predictor-num-frames": config.predictor_num_frames} if config.predictor_steps else {}
    windows |= {"--reachability-steps": 3} if config.reachability_steps else {}
    for option, length in windows.items():
        if config.predictor.kind == "residual" and length - 1 > config.predictor.max_len:
            raise TrainError(f"{option} {length} is more than the predictor sees; raise --predictor.max-len")
        data.sample_rows(1, length, np.random.default_rng(0))


def train(config: TrainConfig, data: Dataset | None = None, watch: phases.Watch | None = None) -> Path:
    """Trains, and returns the checkpoint's folder. Goes on from a saved state; a finished folder is left alone.

    Args:
        config: the settings.
        data: the data set that they name, where it is in memory already.
        watch: called with model, data and step, before the first step of the joint phase and with its every report.
    """
    config = checked(config)
    _check_shares(config)
    device = choose_device(config.device)
    paths, finished = dataset_paths(config), (config.output / "config.json").exists()
    settings = {name: value for name, value in to_json(config).items() if name not in _MEANS}
    if data is None and (not finished or all(path.exists() for path in paths)):
        data = Dataset(paths, task=config.task, in_memory=config.in_memory, frameskip=config.frameskip)
    if data is not None and not finished:
        _require_fit(config, data)
    episodes = {} if data is None else {"episodes": data.fingerprint()}
    with claimed_by_first(config.output, settings | episodes, _FREE if episodes else (*_FREE, "episodes")):
        if finished or data is None:
            log.info("%s is finished already", config.output)
            return config.output
        _train(config, settings, data, device, watch)
        wait_for_all()
    return config.output


def _train(config: TrainConfig, settings: dict, data: Dataset, device: torch.device, watch: phases.Watch | None):
    model, regularizer = build(config, data, device)
    guard = CollapseGuard()
    weights = nn.ModuleDict({"model": model, "regularizer": regularizer, "guard": guard})
    frozen = phases.FrozenEmbeddings(model, data)
    joint = phases.joint_phase(config, model, regularizer, guard, data, watch)
    todo = [joint, phases.predictor_phase(config, model, data, frozen)]
    if model.reachability is not None:
        weights["target"] = target = copy.deepcopy(model.reachability)
        todo.append(phases.reachability_phase(config, model, target, data, frozen))
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(LoopConfig)}
    if not isinstance(data.pixels, Frames):
        shared["num_workers"] = 0  # there is nothing to wait for
    progress = run_phases(todo, weights, config.output, LoopConfig(**shared))

    if not (config.predictor_steps or config.reachability_steps):  # those begin with it
        phases.recalibrate_batchnorm(model, data)
    if rank() > 0:
        return
    report = report_embedding(model, data, num_frames=5000)
    info = CheckpointInfo(
        task=config.task,
        model=model.config,
        data={**to_json(data.info), "num_episodes": len(data.ep_len)},
        training=settings,
        interface=_interface(data.info, model.config.encoder.image_size),
        planning=json.loads(data.info.planning or "{}"),
        commit=git_commit(),
        learning_seconds=round(progress.seconds, 1),
        metrics={"loss": progress.losses, "embedding": report._asdict()},
        collapsed=guard.verdict(),
    )
    save_checkpoint(config.output, model, info, card(info))


def _interface(info: DatasetInfo, image_size: int) -> Interface | None:
    if not info.action_low or not np.isfinite([*info.action_low, *info.action_high]).all():
        return None
    return Interface(info.action_low, info.action_high, info.action_block, info.step_seconds, image_size)


def parse_config(args: Sequence[str]) -> TrainConfig:
    """Returns the settings of command-line options over the chosen preset."""
    from tyro import MISSING

    words, chosen = choose(args, {"--preset": PRESETS, "--regularizer": REGULARIZERS})
    settings: dict[str, Any] = {"preset": option_value(args, "--preset") or "default", **chosen.get("--preset", {})}
    default = TrainConfig(output=MISSING, **settings)
    if (kind := chosen.get("--regularizer")) is not None and kind is not type(default.regularizer):
        default = dataclasses.replace(default, regularizer=kind())
    return parse(TrainConfig, words, default)


def main(args: Sequence[str]) -> None:
    import rich
    from rich.table import Table

    config = parse_config(args)
    with process_group(choose_device(config.device)):
        folder = train(config)
        if rank() > 0:
            return
    info = load_info(folder)
    table = Table(show_header=False)
    for name, fact in facts(info).items():
        table.add_row(name, fact)
    for phase, terms in info.metrics["loss"].items():
        table.add_row(f"loss, {phase}", ", ".join(f"{name} {value:.4g}" for name, value in terms.items()))
    rich.print(table)
    print(f"wrote {folder}")  # noqa: T201
