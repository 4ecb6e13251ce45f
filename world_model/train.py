"""From a data set to a checkpoint: `jepa-mpc train --task reacher --output FOLDER`.

`torchrun --nproc-per-node N -m jepa_mpc train …` trains the same model, to rounding, by N processes, in the phases of
`training/phases.py`. A training that was killed goes on exactly where its last saved state left it, with the same
command.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train")

import copy
import dataclasses
import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from jepa_mpc import places
from jepa_mpc.cli import choose, option_value, parse
from jepa_mpc.devices import choose_device
from jepa_mpc.distributed import claimed_by_first, process_group, rank, wait_for_all
from jepa_mpc.provenance import git_commit
from jepa_mpc.registry import Registry
from jepa_mpc.settings import checked, to_json
from jepa_mpc.world_model.checkpoint import CheckpointInfo, Earlier, load_info, save_checkpoint
from jepa_mpc.world_model.data.augment import AugmentConfig
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.data.frames import Frames
from jepa_mpc.world_model.interface import Interface
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.training import phases
from jepa_mpc.world_model.training.build import build, require_fit, require_shares, settings_of
from jepa_mpc.world_model.training.card import card
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import report_embedding, usual_miss
from jepa_mpc.world_model.training.guard import CollapseGuard
from jepa_mpc.world_model.training.loop import LoopConfig, run_phases
from jepa_mpc.world_model.training.state import TrainError

log = logging.getLogger(__name__)

# Settings that the checkpoint does not tell, for they say where and how it was trained, not what.
_NOT_STORED = ("output", "data", "in_memory", "num_workers", "compile")
# Settings that may be others when a training goes on: its result does not depend on them.
_NOT_COMPARED = (*_NOT_STORED, "preset", "device", "log_every", "report_every", "report_frames", "save_every")


def dataset_paths(config: TrainConfig) -> tuple[Path, ...]:
    """Returns where a training's data lie."""
    return config.data or (places.dataset(config.task),)


def train(config: TrainConfig, data: Dataset | None = None, watch: phases.Watch | None = None) -> Path:
    """Trains, and returns the checkpoint's folder. Goes on from a saved state; a finished folder is left alone.

    Args:
        config: the settings.
        data: the data set that they name, where it is in memory already.
        watch: called with model, data and step, before the first step of the joint phase and with its every report.
    """
    config = checked(config)
    require_shares(config)
    if not config.augment and (config.augmentation != AugmentConfig() or config.distil_steps):
        which = "--distil-steps learn to look through" if config.distil_steps else "--augmentation.* is"
        raise TrainError(f"{which} how pictures are varied; say --augment too, or leave that out")
    device, paths, finished = choose_device(config.device), dataset_paths(config), config.output / "config.json"
    settings = {name: value for name, value in to_json(config).items() if name not in _NOT_STORED}
    if data is None and not (finished.exists() and not all(path.exists() for path in paths)):
        data = Dataset(
            paths, task=config.task, in_memory=config.in_memory, frameskip=config.frameskip, shares=config.shares
        )
    if data is not None and not finished.exists():
        require_fit(config, data)
    episodes = {} if data is None else {"episodes": data.fingerprint()}
    free = _NOT_COMPARED if episodes else (*_NOT_COMPARED, "episodes")
    with claimed_by_first(config.output, settings | episodes, free):
        if data is None or finished.exists():
            log.info("%s is finished already", config.output)
            return config.output
        model, regularizer = build(config, data, device)
        guard = CollapseGuard()
        frozen = functools.cache(lambda: phases.encode_all(model, data))
        goals = functools.cache(lambda: phases.encode_all(model, data, config.modality_dropout))
        goals = goals if model.config.is_multimodal else frozen
        weights = nn.ModuleDict({"model": model, "regularizer": regularizer, "guard": guard})
        joint = phases.joint_phase(config, model, regularizer, guard, data, watch)
        todo = [joint, phases.predictor_phase(config, model, data, frozen)]
        if model.reachability is not None:
            weights["target"] = target = copy.deepcopy(model.reachability)
            todo.append(phases.reachability_phase(config, model, target, data, frozen, goals))
        if config.distil_steps:
            todo.append(phases.distil_phase(config, model, data))
        shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(LoopConfig)}
        if not isinstance(data.pixels, Frames):
            shared["num_workers"] = 0  # there is nothing to wait for
        progress = run_phases(todo, weights, config.output, LoopConfig(**shared))
        if rank() == 0:
            model.eval()
            told, size = data.info, model.config.encoder.image_size
            bounds = (told.action_low, told.action_high)
            usual = model.usual_miss  # of the same encoder and predictor, if neither has learned
            if usual is None or config.num_steps or config.predictor_steps:
                num_frames = config.predictor_num_frames if config.predictor_steps else config.num_frames
                usual = usual_miss(model, data, num_frames)
            felt = told.proprio_names if config.proprio else ()
            interface = Interface(*bounds, told.action_block, told.step_seconds, size, told.cameras, felt)
            before = load_info(config.init) if config.init else None
            info = CheckpointInfo(
                task=config.task,
                model=model.config,
                data={**to_json(told), "num_episodes": len(data.ep_len)},
                training=settings,
                commit=git_commit(),
                earlier=(*before.earlier, Earlier(before.training, before.commit)) if before else (),
                learning_seconds=round(progress.seconds + (before.learning_seconds if before else 0.0), 1),
                metrics={
                    "loss": {**(before.metrics.get("loss", {}) if before else {}), **progress.losses},
                    "embedding": report_embedding(model, data, 5000)._asdict(),
                },
                interface=interface if bounds[0] else None,
                planning=(before.planning if before else {}) or json.loads(told.planning or "{}"),
                collapsed=guard.verdict(),
                usual_miss=usual,
            )
            save_checkpoint(config.output, model, info, card(info), data.picture_stats())
        wait_for_all()
    return config.output


def parse_config(args: Sequence[str]) -> TrainConfig:
    """Returns the settings of command-line options over the chosen preset."""
    from tyro import MISSING

    by_name: dict[str, Registry[Any]] = {"--preset": TRAIN_PRESETS, "--regularizer": REGULARIZERS}
    words, chosen = choose(args, by_name)
    settings: dict[str, Any] = {"preset": option_value(args, "--preset") or "default", **chosen.get("--preset", {})}
    if init := option_value(args, "--init"):
        settings |= settings_of(load_info(init).model)
    default = TrainConfig(output=MISSING, **settings)
    if (kind := chosen.get("--regularizer")) is not None and kind is not type(default.regularizer):
        default = dataclasses.replace(default, regularizer=kind())
    return parse(TrainConfig, words, default, __name__, by_name)


def main(args: Sequence[str]) -> None:
    import rich
    from rich.markdown import Markdown

    config = parse_config(args)
    with process_group(choose_device(config.device)):
        folder = train(config)
        if rank() == 0:
            rich.print(Markdown(card(load_info(folder))))
            print(f"wrote {folder}")  # noqa: T201
