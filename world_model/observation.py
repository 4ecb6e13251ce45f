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


class ModalityDropout(NamedTuple):
    """How often each camera, and proprioception, is hidden from an encoder that learns, since goals may lack them; and
    the chance, from each frame of a window to the next, of another draw.
    """

    chance: float = 0.0
    change: float = 0.25


NO_DROPOUT = ModalityDropout()


def drop_modalities(
    seen: Observation, num_views: int, dropout: ModalityDropout, generator: torch.Generator
) -> Observation:
    """Hides cameras and proprioception at times in this rank's windows (B, T, ...) of a batch. One camera is left.

    Which are hidden changes within a window: to predict across that, embeddings must look through it, as through what
    pictures are varied by.
    """
    if num_views == 1 and seen.proprio is None:
        return seen
    chance, change = dropout
    B, T = seen.pixels.shape[:2]
    first, total = rank() * B, num_ranks() * B
    hidden = draw_hidden(total * T, num_views + 1, chance, generator).view(total, T, -1)
    nth = draw_changes(total, T, change, generator)
    hidden = hidden.gather(1, nth[..., None].expand_as(hidden))[first : first + B].to(seen.pixels.device)
    pixels = hide_views(seen.pixels, hidden[..., :-1])
    return Observation(pixels, None if seen.proprio is None else seen.proprio.masked_fill(hidden[..., -1:], torch.nan))


def draw_changes(num: int, length: int, change: float, generator: torch.Generator) -> Tensor:
    """Draws which of a window's draws each of its frames has (N, T): another than the frame before, by this chance."""
    changed = torch.rand(num, length, generator=generator, device=generator.device) < change
    return changed.cumsum(1) % length  # where all have changed the first draw is still unused


def draw_hidden(num: int, num_modalities: int, chance: float, generator: torch.Generator) -> Tensor:
    """Draws which modalities are hidden (N, V + 1), each with this chance: the last is proprioception, and of the
    others, which are cameras, one is left.
    """
    drawn = torch.rand(num, num_modalities, generator=generator, device=generator.device) < chance
    views = drawn[:, :-1]
    left = torch.randint(views.shape[1], (num,), generator=generator, device=generator.device)
    views[views.all(1), left[views.all(1)]] = False
    return drawn


def hide_views(pixels: Tensor, hidden: Tensor) -> Tensor:
    """Returns pictures (..., H, V·W, 3) that show nothing of the hidden (..., V) cameras."""
    if hidden.shape[-1] == 1:
        return pixels
    views = pixels.unflatten(-2, (hidden.shape[-1], -1))
    return views.masked_fill(hidden[..., None, :, None, None], 0).flatten(-3, -2)
