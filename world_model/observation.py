"""What a model is shown at a time: pictures, of one camera or several, and what the robot feels of itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_mpc.distributed import num_ranks, rank


class Observation(NamedTuple):
    """Pictures (..., H, V·W, 3) of V cameras side by side, and proprioception (..., P) if there is any.

    A camera that shows nothing is black, and a number that is not known is NaN.
    """

    pixels: Tensor
    proprio: Tensor | None = None

    @classmethod
    def of(cls, seen: Tensor | Observation) -> Observation:
        """Returns pictures alone as an observation, and an observation as it is."""
        return seen if isinstance(seen, Observation) else cls(seen)

    def to(self, device: torch.device) -> Observation:
        return Observation(self.pixels.to(device), None if self.proprio is None else self.proprio.to(device))


def hide(seen: Observation, share: float, change: float, generator: torch.Generator) -> Observation:
    """Hides so large a share of each camera and of proprioception in this rank's windows (B, T, ...) of a batch, so
    that a goal may lack them.

    Which are hidden changes within a window with this chance a frame: to predict across that, embeddings must look
    through it, as through what pictures are varied by. One camera is left.
    """
    B, T, H, width, _ = seen.pixels.shape
    num_views, first, total = width // H, rank() * B, num_ranks() * B
    if num_views == 1 and seen.proprio is None:
        return seen
    drawn = torch.rand(total, T, num_views + 1, generator=generator, device=generator.device) < share
    drawn[..., :-1] &= ~drawn[..., :-1].all(-1, keepdim=True)
    nth = (torch.rand(total, T, generator=generator, device=generator.device) < change).cumsum(1) % T
    hidden = drawn.gather(1, nth[..., None].expand_as(drawn))[first : first + B].to(seen.pixels.device)
    pixels = seen.pixels
    if num_views > 1:
        views = pixels.unflatten(3, (num_views, H))
        pixels = views.masked_fill(hidden[:, :, None, :-1, None, None], 0).flatten(3, 4)
    proprio = seen.proprio
    if proprio is not None:
        proprio = proprio.masked_fill(hidden[:, :, -1:], torch.nan)
    return Observation(pixels, proprio)
