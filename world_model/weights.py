"""Tensors in files: read without unpickling, held against the module that they are for before it takes them."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from jepa_mpc.errors import UserError, reason

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message is one line that names the fix."""


def half_precision(module: nn.Module) -> dict[str, Tensor]:
    """Returns the weights as they are stored. Buffers keep their precision: variances can overflow half."""
    half = {name for name, _ in module.named_parameters()}
    state = module.state_dict()
    return {name: (value.half() if name in half else value).contiguous().cpu() for name, value in state.items()}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns a safetensors file's tensors and metadata. Raises `CheckpointError` if it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path.parent}: {path.name} is missing; restore it or train it again")
    try:
        with safe_open(path, "pt") as file:  # which holds the sizes in its header against its own
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({reason(error)}); restore it or train it again") from error


def require_same(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """Raises `CheckpointError`, which names the first difference, unless names, shapes and kinds of numbers agree."""
    for name in [*expected, *tensors]:
        wrong = ""
        if name not in expected:
            wrong = f"{name} is no part of the model"
        elif name not in tensors:
            wrong = f"{name} is missing"
        elif (here := tuple(tensors[name].shape)) != (there := tuple(expected[name].shape)):
            wrong = f"{name} is {here}, and {there} by its settings"
        elif tensors[name].dtype not in (FLOATS if expected[name].is_floating_point() else (torch.int64,)):
            wrong = f"{name} is of type {tensors[name].dtype}"
        if wrong:
            raise CheckpointError(f"{source} is damaged ({wrong}); restore it or train it again")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Gives a module on the meta device its weights. Raises `CheckpointError` if they do not fit or are not finite."""
    expected = module.state_dict()
    require_same(tensors, expected, source)
    owned = {name: tensors[name].to(value.dtype, copy=True) for name, value in expected.items()}
    for name, value in owned.items():
        too_low = (name.endswith("running_var") and (value < 0).any()) or (name == "action_std" and (value <= 0).any())
        if too_low or not value.isfinite().all():
            raise CheckpointError(f"{source} is damaged ({name} has numbers that no training leaves); train it again")
    module.load_state_dict(owned, assign=True)


def plain_name(name: str) -> str:
    """Returns a tensor's name without what `torch.compile`, DataParallel and Lightning put before it."""
    return re.sub(r"^(?:module\.|model\.)+", "", name.replace("_orig_mod.", ""))
