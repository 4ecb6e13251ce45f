"""How unforeseen a picture is: what its embedding is away from the predicted one.

Two things tell it. A miss may be too large for the motion that was foreseen, at once. And foreseen changes of motion
may come only in part, picture after picture, as where a load is too heavy or a joint too stiff. Each is in units of
what 19 in 20 predictions in training's held-out episodes stay below; surprise is the greater of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_mpc.settings import NonNegative, Positive

_FADES = 0.9  # what earlier pictures count for, from each to the next
_DOUBT = 1.0  # before any is seen, so much foreseen change counts as come in full


@dataclass(frozen=True)
class UsualMiss:
    """By how much one-step predictions miss in held-out episodes."""

    median: NonNegative  # Euclidean distance from what came
    share: tuple[NonNegative, ...]  # 0.95 quantiles of `Miss.share`, of predictions from 1, 2, … frames
    lag: Positive | None = None  # 0.95 quantile of `Lag.value`; older checkpoints do not say


class Miss(NamedTuple):
    """What came in B episodes, against what was foreseen; all are (B, D)."""

    missed: Tensor  # what came less what was foreseen
    moved: Tensor  # what was foreseen less what was before it
    changed: Tensor  # that less the motion before it

    @classmethod
    def of(cls, came: Tensor, foreseen: Tensor, before: Tensor, earlier: Tensor) -> Miss:
        """Returns the miss of embeddings (B, D): those that came and were foreseen, and the two before these."""
        return cls(came - foreseen, foreseen - before, foreseen - 2 * before + earlier)

    def share(self, median: float | Tensor) -> Tensor:
        """Returns how far the miss goes (B,), in shares of the foreseen motion plus the median miss."""
        return self.missed.norm(dim=-1) / (self.moved.norm(dim=-1) + median).clamp_min(1e-12)


class Lag(NamedTuple):
    """Foreseen changes of motion that have not come, and all that were foreseen: sums (B,) over pictures, in which late
    ones count more, and those at which much moved count less, for there predictions miss by more.
    """

    absent: Tensor
    foreseen: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Lag:
        """Returns what is known before any picture, of as many episodes as there are rows."""
        return cls(torch.zeros_like(like[:, 0]), torch.zeros_like(like[:, 0]))

    def after(self, miss: Miss, median: float | Tensor) -> Lag:
        """Returns the lag when one more picture has come; one that is no number changes nothing."""
        weight = 1 / (miss.moved.square().sum(-1) + median**2).clamp_min(1e-12)
        absent = -weight * (miss.missed * miss.changed).sum(-1)
        foreseen = weight * miss.changed.square().sum(-1)
        known = absent.isfinite() & foreseen.isfinite()
        later = Lag(_FADES * self.absent + absent, _FADES * self.foreseen + foreseen)
        return Lag(*(torch.where(known, now, before) for now, before in zip(later, self, strict=True)))

    @property
    def value(self) -> Tensor:
        """Returns the share (B,) of the foreseen changes that has not come; below 0 where more came."""
        return self.absent / (self.foreseen + _DOUBT)


def surprise(usual: UsualMiss | None, miss: Miss, lag: Lag, num_frames: int) -> Tensor:
    """Returns the surprise (B,) at a miss of predictions from so many frames, and at the lag that it leads to; NaN if
    what is usual is unknown.
    """
    if usual is None:
        return miss.missed.new_full(miss.missed.shape[:-1], math.nan)
    at_once = miss.share(usual.median) / usual.share[min(num_frames, len(usual.share)) - 1]
    return at_once if usual.lag is None else torch.maximum(at_once, lag.value / usual.lag)
