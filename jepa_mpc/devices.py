"""Where to compute, and in what precision it pays."""

import os

import torch

from jepa_mpc.errors import UserError


def choose_device(name: str) -> torch.device:
    """Returns the device of that name, or for "auto" the best there is; `UserError` if it is not there.

    Of several processes on a machine each gets a GPU of its own.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not available.get(device.type) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UserError(f"device {name!r} is not there; this machine has: {there}")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the hardware multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
