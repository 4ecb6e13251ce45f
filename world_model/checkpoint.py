"""A checkpoint is a folder that loads from its path alone; nothing in it is ever unpickled.

model.safetensors   weights and normalisers; floating-point weights in half precision
config.json         format version, task, model and training settings, where it came from, what it measured
card.md             the gist of it, for people
"""

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dacite
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.files import write_whole
from jepa_mpc.provenance import git_commit as git_commit
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig

FORMAT_VERSION = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message is one line that names the fix."""


@dataclass(frozen=True)
class CheckpointInfo:
    """All that stands in `config.json`."""

    task: str
    model: JEPAConfig
    data: dict[str, Any]  # the data set's attributes, the simulator's version among them
    training: dict[str, Any]  # the training settings
    commit: str
    learning_seconds: float
    metrics: dict[str, Any]  # last losses of each phase of training, and the embedding report
    collapsed: str = ""  # one line if the embeddings had collapsed when the joint training ended
    format_version: int = FORMAT_VERSION

    @property
    def simulator(self) -> str:
        return str(self.data.get("simulator", "unknown"))


def save_checkpoint(folder: Path, model: JEPA, info: CheckpointInfo, card: str, half: bool = True) -> None:
    """Writes the files, each whole or not at all; weights in half precision, or as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = half_precision(model) if half else {name: x.contiguous() for name, x in model.state_dict().items()}
    files = {
        "model.safetensors": save(weights),
        "card.md": card.encode(),
        "config.json": (json.dumps(asdict(info), indent=2) + "\n").encode(),  # last: its being there says finished
    }
    for name, content in files.items():
        write_whole(folder / name, content)


def half_precision(module: nn.Module) -> dict[str, Tensor]:
    """The weights as they are stored. Buffers keep their precision: variances can overflow half."""
    half = {name for name, _ in module.named_parameters()}
    state = module.state_dict()
    return {name: (value.half() if name in half else value).contiguous().cpu() for name, value in state.items()}


def weights_digest(checkpoint: Path, file: str = "model.safetensors") -> str:
    """Tells one world model, or another file of a checkpoint, from the next."""
    return hashlib.sha256((checkpoint / file).read_bytes()).hexdigest()[:12]


def load_info(folder: Path) -> CheckpointInfo:
    """Returns what stands in a checkpoint's `config.json`."""
    return dacite.from_dict(
        CheckpointInfo, json.loads((folder / "config.json").read_text()), dacite.Config(strict=True, cast=[tuple])
    )


def load_checkpoint(folder: Path | str, *, task: str | None = None, device: str = "cpu") -> tuple[JEPA, CheckpointInfo]:
    """The model in evaluation mode, and its info.

    Raises `CheckpointError` if it is missing, damaged, of another format version, or of another task than `task`.
    """
    folder = Path(folder)
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    if not config_path.is_file() or not weights_path.is_file():
        raise CheckpointError(
            f"no checkpoint at {folder} (it needs config.json and model.safetensors); "
            "train one with `python world_model/train.py`"
        )
    try:
        stored = json.loads(config_path.read_text())
        version = stored["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"checkpoint {folder} has format {version}, this version reads {FORMAT_VERSION}; train it again"
            )
        info = dacite.from_dict(CheckpointInfo, stored, dacite.Config(strict=True, cast=[tuple]))
        if task is not None and info.task != task:
            raise CheckpointError(f"checkpoint {folder} was trained on task {info.task!r}, not {task!r}")
        model = JEPA(info.model)
        model.load_state_dict(load_file(weights_path))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ArithmeticError,
        RuntimeError,
        SafetensorError,
        dacite.DaciteError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"checkpoint {folder} is damaged ({reason}); restore it or train it again") from error
    if info.collapsed:
        warnings.warn(f"checkpoint {folder} will not plan: {info.collapsed}", stacklevel=2)
    model = model.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return model.requires_grad_(False), info
