"""What a training begins from: the model for its data, and the conditions without which none begins."""

import dataclasses
import logging
from typing import Any

import numpy as np
import torch

from jepa_mpc.distributed import num_ranks
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_info
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.model.encoder import MultiModalEncoder
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.regularizers.base import Regularizer
from jepa_mpc.world_model.training.config import TrainConfig
from jepa_mpc.world_model.training.phases import recalibrate_batchnorm
from jepa_mpc.world_model.training.state import TrainError

log = logging.getLogger(__name__)


def build(config: TrainConfig, data: Dataset, device: torch.device) -> tuple[JEPA, Regularizer]:
    """Returns model and regulariser as they are before the first step."""
    torch.manual_seed(config.seed)
    if config.init is None:
        model = JEPA(_model_config(config, data))
        mean, std = data.action_stats()
        model.action_mean.copy_(torch.from_numpy(mean))
        model.action_std.copy_(torch.from_numpy(std))
        if config.proprio:
            mean, std = data.proprio_stats()
            assert isinstance(model.encoder, MultiModalEncoder)
            model.encoder.mean.copy_(torch.from_numpy(mean))
            model.encoder.std.copy_(torch.from_numpy(std))
    else:  # its actions stay in the units that it has learned
        model = load_checkpoint(config.init, task=config.task)[0]
        if config.distil_steps:
            model = _with_second_encoder(model)
        model.requires_grad_(True)
        if config.reachability_steps:
            model.reachability = JEPA(model.config).reachability
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.num_steps:  # so that the report before the first step is true
        recalibrate_batchnorm(model, data, config.joint_augmentation, config.dropout, num_batches=4)
    if config.compile:
        model.encoder.compile()
    return model, config.regularizer.make(model).to(device)


def _with_second_encoder(model: JEPA) -> JEPA:
    """Returns a model with a second encoder, which is as the first."""
    wider = JEPA(dataclasses.replace(model.config, robust=True))
    wider.load_state_dict(model.state_dict(), strict=False)
    wider.begin_robust()
    wider.usual_miss = model.usual_miss
    return wider.eval()


def settings_of(model: JEPAConfig) -> dict[str, Any]:
    """Returns the training settings that make a model of these sizes."""
    same = ("embed_dim", "projector_hidden", "projector_activation", "encoder", "predictor")
    settings = {name: getattr(model, name) for name in same} | {"proprio": model.proprio_dim > 0}
    return settings | ({"reachability": model.reachability} if model.reachability else {})


def require_shares(config: TrainConfig) -> None:
    """Raises `TrainError`, which names the counts that do, if the processes cannot share every batch evenly."""
    steps = {
        "": config.num_steps + config.distil_steps,
        "predictor_": config.predictor_steps,
        "reachability_": config.reachability_steps,
    }
    sizes = {f"{phase}batch_size": getattr(config, f"{phase}batch_size") for phase, num in steps.items() if num}
    if odd := [f"--{name.replace('_', '-')} {size}" for name, size in sizes.items() if size % num_ranks()]:
        counts = " or ".join(str(n) for n in range(1, 65) if not any(size % n for size in sizes.values()))
        raise TrainError(
            f"{num_ranks()} processes cannot share {' and '.join(odd)} evenly; change that, or start {counts}"
        )


def require_fit(config: TrainConfig, data: Dataset) -> None:
    """Raises `UserError` if model, windows and data do not fit each other."""
    height, width = data.pixels.shape[1:3]
    if width != data.num_views * height:
        raise TrainError(f"pictures must be square, not {(height, width, 3)}; write the data set again")
    if config.encoder.num_views not in (1, data.num_views):
        raise TrainError(f"--encoder.num-views is as many as the data have cameras, {data.num_views}; leave it out")
    usual = type(config).modality_dropout
    if config.modality_dropout != usual and data.num_views == 1 and not config.proprio:
        raise TrainError("--modality-dropout hides cameras or proprioception, and there is one camera; leave it out")
    if config.distil_steps and (config.proprio or data.num_views > 1):
        raise TrainError("--distil-steps teaches an encoder of one camera's pictures alone; leave that out")
    if config.proprio and not data.info.proprio_names:
        raise TrainError("--proprio is of data that tell what a robot feels, and these do not; leave it out")
    if config.proprio and (never := np.flatnonzero(np.isnan(data.proprio).all(axis=0)).tolist()):
        if len(never) == len(data.info.proprio_names):
            raise TrainError("--proprio: in these data it is never known (NaN throughout); leave it out")
        log.warning("proprio %s is never known in these data", ", ".join(data.info.proprio_names[i] for i in never))
    with torch.device("meta"):
        JEPA(wanted := _model_config(config, data))
    if config.init is None and not config.num_steps:
        raise TrainError("--num-steps 0 leaves an encoder as it is, and a new one knows nothing; say --init CHECKPOINT")
    if config.init is not None:
        info = load_info(config.init)
        there = info.model
        if info.interface is not None and (fault := info.interface.misfit(data.info.cameras, data.info.proprio_names)):
            raise TrainError(f"--init {config.init} {fault}; name data of its own")
        if there.robust and config.num_steps and not config.distil_steps:
            raise TrainError(f"--init {config.init} has a second encoder, which must learn again; say --distil-steps")
        for field in dataclasses.fields(JEPAConfig):
            was, now = getattr(there, field.name), getattr(wanted, field.name)
            free = {"reachability": not config.reachability_steps, "robust": True}
            if field.name == "proprio_dim" and bool(was) != bool(now):
                knows, cure = ("knows", "say") if was else ("does not know", "leave out")
                raise TrainError(f"--init {config.init} {knows} proprioception; {cure} --proprio")
            if was != now and not free.get(field.name):
                raise TrainError(f"--init {config.init} has {field.name} {was}, not {now}; leave its options out")
    windows = {"--num-frames": config.num_frames}
    windows |= {"--predictor-num-frames": config.predictor_num_frames} if config.predictor_steps else {}
    windows |= {"--reachability-steps": 3} if config.reachability_steps else {}
    for option, length in windows.items():
        if config.predictor.kind == "residual" and length - 1 > config.predictor.max_len:
            raise TrainError(f"{option} {length} is more than the predictor sees; raise --predictor.max-len")
        data.sample_rows(1, length, np.random.default_rng(0))  # raises where no episode is that long


def _model_config(config: TrainConfig, data: Dataset) -> JEPAConfig:
    return JEPAConfig(
        data.action.shape[1],
        config.embed_dim,
        config.projector_hidden,
        dataclasses.replace(config.encoder, image_size=data.pixels.shape[1], num_views=data.num_views),
        config.predictor,
        config.reachability if config.reachability_steps else None,
        config.regularizer.spherical,
        config.projector_activation,
        robust=config.distil_steps > 0,
        proprio_dim=len(data.info.proprio_names) if config.proprio else 0,
    )
