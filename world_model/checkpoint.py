"""A checkpoint is a folder that loads from its path alone; nothing in it is ever unpickled.

model.safetensors     weights and normalisers; floating-point weights in half precision
pictures.safetensors  mean and std of training's pictures, by which other cameras are calibrated
config.json           format version, task, model and training settings, where it came from, what it measured
card.md               the gist of it, for people

What an agent needs stands in it too: bounds and length of an action, and how to plan. Sizes that it declares are
compared with the weights' own header before anything is allocated.
"""

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from jepa_mpc import places
from jepa_mpc.devices import choose_device
from jepa_mpc.errors import UserError
from jepa_mpc.files import read_json, write_json, write_whole
from jepa_mpc.pictures import PictureStats
from jepa_mpc.registry import same, split_camera
from jepa_mpc.settings import NonNegative, read, to_json
from jepa_mpc.world_model.interface import Interface
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.surprise import UsualMiss
from jepa_mpc.world_model.weights import CheckpointError, fill, half_precision, plain_name, read_tensors

_PICTURES = "pictures.safetensors"
FORMAT_VERSION = 2  # 1: without interface and planning


@dataclass(frozen=True)
class Earlier:
    """A training that another one went on from."""

    training: dict[str, Any]
    commit: str


@dataclass(frozen=True)
class CheckpointInfo:
    """All that stands in `config.json`."""

    task: str
    model: JEPAConfig
    data: dict[str, Any]  # the data set's attributes, the simulator's version among them
    training: dict[str, Any]  # the training settings
    commit: str
    learning_seconds: NonNegative  # of all trainings
    metrics: dict[str, Any]  # last losses of each phase of training, and the embedding report
    earlier: tuple[Earlier, ...] = ()  # trainings that this one went on from, the first one first
    interface: Interface | None = None  # where the data say so
    planning: dict[str, Any] = field(default_factory=dict)  # how the agent plans, where it differs from its defaults
    usual_miss: UsualMiss | None = None  # older checkpoints do not say
    collapsed: str = ""  # one line if the embeddings had collapsed when the joint training ended
    format_version: int = FORMAT_VERSION

    @property
    def declared(self) -> str:
        """Returns in words what the model is told beside one camera's pictures, as every figure of it must say."""
        if self.interface is not None:
            return self.interface.declared
        return "cameras or proprioception that are not said" if self.model.is_multimodal else ""

    @property
    def simulator(self) -> str:
        return str(self.data.get("simulator", "unknown"))


def save_checkpoint(
    folder: Path, model: JEPA, info: CheckpointInfo, card: str, pictures: PictureStats | None = None, half: bool = True
) -> None:
    """Writes the files, each whole or not at all; weights in half precision, or as they are."""
    if pictures is not None:
        stats = {name: torch.from_numpy(values) for name, values in pictures._asdict().items()}
        write_whole(folder / _PICTURES, save(stats))
    weights = half_precision(model) if half else {name: x.contiguous() for name, x in model.state_dict().items()}
    write_whole(folder / "model.safetensors", save(weights))
    write_whole(folder / "card.md", card)
    write_json(folder / "config.json", to_json(info))  # last: its being there says finished


def load_picture_stats(checkpoint: Path | str) -> PictureStats:
    """Returns what training's pictures were like. Raises `UserError` if that is missing or damaged."""
    folder, size = places.checkpoint(checkpoint), load_info(checkpoint).model.encoder.picture_size
    if not (path := folder / _PICTURES).exists():
        raise CheckpointError(f"{folder} is of an older version, which kept no {_PICTURES}; train it again")
    tensors, _ = read_tensors(path)
    wanted = dict.fromkeys(PictureStats._fields, (torch.uint8, (*size, 3)))
    if {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()} != wanted:
        raise CheckpointError(
            f"{path} is damaged (it must hold mean and std, {'×'.join(map(str, size))}×3 uint8); train it again"
        )
    return PictureStats(**{name: value.numpy() for name, value in tensors.items()})


def weights_digest(checkpoint: Path, file: str = "model.safetensors") -> str:
    """Returns what tells one world model, or another file of a checkpoint, from the next."""
    return hashlib.sha256((checkpoint / file).read_bytes()).hexdigest()[:12]


def load_info(checkpoint: Path | str) -> CheckpointInfo:
    """Returns what stands in a checkpoint's `config.json`. Raises `UserError` if it is missing or damaged."""
    if not isinstance(checkpoint, str | Path):
        raise CheckpointError(f"a checkpoint is a folder or a bundled one's name, not {checkpoint!r}")
    path = places.checkpoint(checkpoint) / "config.json"
    stored = read_json(path, "restore it or train it again")
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path} is damaged (it holds no object); restore it or train it again")
    if (version := stored.get("format_version")) not in (1, FORMAT_VERSION):
        raise CheckpointError(f"{path} has format {version}, this version reads 1 and {FORMAT_VERSION}; train it again")
    info = read(CheckpointInfo, stored, f"{path} is damaged")
    size, num_felt = info.model.encoder.picture_size, info.model.proprio_dim
    if fault := info.interface and info.interface.fault("the model", size, num_felt):
        raise CheckpointError(f"{path} is damaged: interface.{fault}; restore it or train it again")
    if info.usual_miss is not None and not info.usual_miss.share:
        raise CheckpointError(f"{path} is damaged: usual_miss.share is empty; restore it or train it again")
    return info


def load_checkpoint(
    checkpoint: Path | str, *, task: str | None = None, device: str = "cpu"
) -> tuple[JEPA, CheckpointInfo]:
    """Returns the model in evaluation mode, and its info, of a folder or of a bundled checkpoint's name.

    Raises `UserError` if it is missing, damaged, of another format version, or of another task than `task`.
    """
    info, folder = load_info(checkpoint), places.checkpoint(checkpoint)
    if task is not None and not same(info.task, task):
        plain, camera = split_camera(info.task)
        cure = f"; say --camera {camera}" if camera and same(plain, split_camera(task)[0]) else ""
        raise CheckpointError(f"checkpoint {folder} was trained on task {info.task!r}, not {task!r}{cure}")
    try:
        with torch.device("meta"):  # nothing is allocated by what config.json declares
            model = JEPA(info.model)
    except UserError as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged: {error}") from error
    tensors, _ = read_tensors(path := folder / "model.safetensors")
    fill(model, {plain_name(name): value for name, value in tensors.items()}, path)
    if info.collapsed:
        warnings.warn(f"checkpoint {folder} will not plan: {info.collapsed}", stacklevel=2)
    model.usual_miss = info.usual_miss
    model = model.to(choose_device(device)).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return model.requires_grad_(False), info
