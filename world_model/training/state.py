"""States of a training, to resume from: the newest is read, or the one before it where that is damaged."""

import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.files import whole
from jepa_mpc.settings import read
from jepa_mpc.world_model.weights import CheckpointError, read_tensors, require_same

log = logging.getLogger(__name__)

_STATES = ("state.safetensors", "state.previous.safetensors")  # the newest first

Moments = dict[int, dict[str, Tensor]]  # of an optimiser, by parameter
P = TypeVar("P")  # a dataclass that says how far a training has come; its defaults are the beginning


class TrainError(UserError):
    """A training that cannot start or go on; the message is one line that names the fix."""


def restore(optimizer: torch.optim.Optimizer, state: Moments) -> None:
    """Gives an optimiser its moments back, in its parameters' own layout, which fused kernels take for granted."""
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def save_state(folder: Path, weights: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: object) -> None:
    """Writes weights and the optimisers' moments, in full precision, to resume from; the state before it is kept."""
    tensors = {f"weights/{name}": value for name, value in weights.state_dict().items()}
    for which, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{which}/{index}/{name}": value for name, value in moments.items()}
    tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
    newest, previous = (folder / name for name in _STATES)
    with whole(newest) as scratch:
        said = json.dumps(vars(progress))
        scratch.write_bytes(save(tensors, {"progress": said, "sum": _sum(tensors, said)}))
        if newest.exists():
            os.replace(newest, previous)


def _sum(tensors: dict[str, Tensor], progress: str) -> str:
    """Returns a checksum: a state that was damaged on the disk must not be trained on."""
    total = zlib.crc32(progress.encode())
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(content, zlib.crc32(name.encode(), total))  # type: ignore[arg-type]
    return str(total)


def newest_state(folder: Path, weights: nn.Module, kind: type[P]) -> tuple[P, list[Moments]]:
    """Returns of the states in the folder the newest that is whole, or the beginning if there are none."""
    there = [path for path in (folder / name for name in _STATES) if path.exists()]
    for path in there:
        try:
            return _load_state(path, weights, kind)
        except UserError:
            log.warning("%s is damaged; the state before it must do", path)
    if there:
        raise TrainError(f"{there[0]} is damaged; delete it to start afresh")
    return kind(), []


def _load_state(path: Path, weights: nn.Module, kind: type[P]) -> tuple[P, list[Moments]]:
    """Puts the saved weights back; returns the progress and each optimiser's moments."""
    stored, metadata = read_tensors(path)
    if metadata.get("sum") != _sum(stored, metadata.get("progress", "")):
        raise CheckpointError(f"{path} is damaged")
    progress = read(kind, json.loads(metadata["progress"]), path)
    prefix, moments = "weights/", dict[int, Moments]()
    for key, value in stored.items():
        if not key.startswith(prefix):
            _, which, index, name = key.split("/")
            moments.setdefault(int(which), {}).setdefault(int(index), {})[name] = value
    found = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    require_same(found, weights.state_dict(), path)
    weights.load_state_dict(found)
    return progress, [moments[which] for which in sorted(moments)]
