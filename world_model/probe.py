"""Reads numbers, such as the angle of a joint, off embeddings, and knows by how much it errs.

Notable: a Gaussian kernel on embeddings, fitted by ridge regression, which a hundred labels are enough for and which
gets better with more. Width and ridge are those that read best what they were not fitted on: a fifth of the episodes at
a time. What is missed there is the error that a probe states. Angles are read as cosine and sine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from jepa_mpc.errors import UserError
from jepa_mpc.files import write_whole
from jepa_mpc.registry import did_you_mean
from jepa_mpc.settings import Count, NonNegative, Positive, Valid, to_json
from jepa_mpc.settings import read as read_settings
from jepa_mpc.world_model.checkpoint import weights_digest
from jepa_mpc.world_model.weights import CheckpointError, read_tensors, require_same

MOST_CENTRES = 1000
LEAST_LABELS, MOST_LABELS = 10, 20_000
_NUM_FOLDS = 5
# Widths of the kernel, in units of how far embeddings lie from their mean, and the ridge beside it: narrow kernels are
# for many labels, wide ones for few.
_TRIED = ((0.5, 1e-2), (1.0, 1e-2), (2.0, 1e-4), (4.0, 1e-4), (8.0, 1e-4))
# A gap in the angles seen that one which could turn all round would not leave: of many labels, and at most of few.
_BARRIER, _WIDEST_BARRIER = math.radians(20), math.radians(55)
_JITTER = 1e-7  # so that the kernel of centres that are nearly the same has a root


@dataclass(frozen=True)
class Coordinate(Valid):
    """A number that is read, and how well: of labels that the probe was not fitted on, half are missed by less than
    `median`, nine in ten by less than `p90`. Angles are in radians, other numbers in the labels' own unit. An angle
    that wraps leads all the way round; one that does not, such as a wrist's, is a number from one end to the other.
    """

    name: str
    is_angle: bool
    wraps: bool
    low: float  # the least and the most of the labels; of an angle that wraps, between −π and π
    high: float
    median: NonNegative
    p90: Positive

    @property
    def unit(self) -> str:
        return " rad" if self.is_angle else ""

    def difference(self, one: Tensor, other: Tensor | float) -> Tensor:
        """Returns one minus the other (...), of an angle that wraps the shorter way round."""
        return wrapped(one - other) if self.wraps else one - other

    def normal(self, value: Tensor) -> Tensor:
        """Returns values (...) as they are read: an angle's within half a turn of the middle of its range."""
        middle = 0.0 if self.wraps else (self.low + self.high) / 2
        return middle + wrapped(value - middle) if self.is_angle else value

    def describe(self) -> str:
        """Returns its range and its error in words."""
        return (
            f"{self.name}: {self.low:.4g} to {self.high:.4g}{self.unit} in the labels, read within {self.median:.2g} "
            f"(median) and {self.p90:.2g} (9 in 10){self.unit}"
        )


@dataclass(frozen=True)
class ProbeInfo:
    """What a probe says of itself."""

    coordinates: tuple[Coordinate, ...]
    checkpoint: str  # digest of the world model's weights
    num_labels: Count
    width: Positive
    ridge: Positive


def wrapped(angle: Tensor) -> Tensor:
    """Returns angles (...) between −π and π."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi


class Probe:
    """Reads P numbers off embeddings.

    Args:
        info: what they are.
        tensors: `mean` (D,) and `scale` () of embeddings, `centres` (K, D) of the kernel, `weights` (K, T) and `bias`
            (T,) of what is read, an angle's cosine and sine among them.
    """

    def __init__(self, info: ProbeInfo, tensors: Mapping[str, Tensor]):
        self.info, self._tensors = info, dict(tensors)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self.info.coordinates

    @property
    def embed_dim(self) -> int:
        return len(self._tensors["mean"])

    def __call__(self, z: Tensor) -> Tensor:
        """Returns the numbers (..., P) of embeddings (..., D)."""
        if z.device != self._tensors["mean"].device:
            self._tensors = {name: value.to(z.device) for name, value in self._tensors.items()}
        mean, scale, centres, weights, bias = (self._tensors[name] for name in _TENSORS)
        x = ((z - mean) / scale).reshape(-1, z.shape[-1])
        read = _decoded(_kernel(x, centres, self.info.width) @ weights + bias, [c.is_angle for c in self.coordinates])
        read = torch.stack([each.normal(read[:, i]) for i, each in enumerate(self.coordinates)], dim=-1)
        return read.view(*z.shape[:-1], -1)

    def index(self, name: str, asked_by: str) -> int:
        """Returns which of its numbers has that name. Raises `UserError`, which suggests the nearest, if none has."""
        names = [each.name for each in self.coordinates]
        if name not in names:
            hint = did_you_mean(name, names)
            raise UserError(
                f"{asked_by}: the probe reads {', '.join(names)}, and no {name!r}" + f"; {hint}" * bool(hint)
            )
        return names.index(name)

    def save(self, path: Path) -> None:
        """Writes the probe, whole or not at all."""
        write_whole(path, save(self._tensors, {"probe": json.dumps(to_json(self.info))}))

    @classmethod
    def load(cls, path: Path | str, checkpoint: Path) -> Probe:
        """Returns what `jepa-mpc fit-probe` has written. Raises `UserError` if it is missing, damaged, or of another
        world model than that folder's.
        """
        path, fix = Path(path), "fit it again with `jepa-mpc fit-probe`"
        if not path.is_file():
            raise UserError(f"there is no probe at {path}; {fix}")
        try:
            tensors, told = read_tensors(path)
            stored = json.loads(told.get("probe", "null"))
        except (CheckpointError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is no probe, or damaged; {fix}") from error
        info = read_settings(ProbeInfo, stored, f"{path} is no probe, or damaged")
        if info.checkpoint != (digest := weights_digest(checkpoint)):
            raise UserError(f"{path} reads the world model {info.checkpoint}, and {checkpoint} is {digest}; {fix}")
        K, D = (*tensors.get("centres", torch.empty(0)).shape, 0, 0)[:2]
        T = sum(1 + each.is_angle for each in info.coordinates)
        expected = dict(zip(_TENSORS, map(torch.empty, ((D,), (), (K, D), (K, T), (T,))), strict=True))
        require_same(tensors, expected, path)
        if not (T and all(value.isfinite().all() for value in tensors.values()) and tensors["scale"] > 0):
            raise UserError(f"{path} is damaged; {fix}")
        return cls(info, {name: value.float() for name, value in tensors.items()})

    @classmethod
    def fit(
        cls,
        z: Tensor,
        labels: Mapping[str, NDArray[np.floating]],
        angles: Sequence[str] = (),
        groups: NDArray[np.integer] | None = None,
        checkpoint: str = "",
        judged: NDArray[np.bool_] | None = None,
        known: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> Probe:
        """Returns the probe that reads labels, (N,) each, off embeddings z (N, D).

        Args:
            z: embeddings.
            labels: numbers by name.
            angles: names of those that wrap at 2π.
            groups: (N,) of each label, such as its episode: what is near in time is not fitted to judge its neighbour.
            checkpoint: digest of the world model.
            judged: (N,) on which labels the error is measured; all unless given.
            known: more labels of the same names, which tell where an angle goes; these alone unless given.

        Raises `UserError` where there are too few labels, or of too few groups, or one never varies.
        """
        N = len(z)
        each_group, group = np.unique(np.arange(N) if groups is None else groups, return_inverse=True)
        if N < LEAST_LABELS or len(each_group) < 2:
            raise UserError(f"a probe needs {LEAST_LABELS} labels or more, of two episodes; there are {N}")
        values = np.stack([np.asarray(each, float) for each in labels.values()], axis=1)
        for name, column in zip(labels, values.T, strict=True):
            if not np.isfinite(column).all():
                raise UserError(f"label {name!r} is not a number everywhere: {column[~np.isfinite(column)][0]}")
            if np.ptp(column) == 0:
                raise UserError(f"label {name!r} is always {column[0]:g}: there is nothing to read; leave it out")
        is_angle = [name in angles for name in labels]
        targets = torch.from_numpy(_encoded(values, is_angle))
        mean, bias, std = z.double().mean(0), targets.mean(0), targets.std(0).clamp_min(1e-12)
        scale = (z.double() - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
        x, fold = (z.double() - mean) / scale, torch.from_numpy(group % min(_NUM_FOLDS, len(each_group)))
        on = torch.ones(N, dtype=torch.bool) if judged is None else torch.from_numpy(judged)
        best = _best_regression(x, (targets - bias) / std, fold, on)
        read = _decoded(best.unseen * std + bias, is_angle)[on]
        truth = torch.from_numpy(values)
        coordinates = [
            _judged(
                name, angle, truth[:, i] if known is None else torch.from_numpy(known[name]), read[:, i] - truth[on, i]
            )
            for i, (name, angle) in enumerate(zip(labels, is_angle, strict=True))
        ]
        tensors = {"mean": mean, "scale": scale, "centres": best.centres, "weights": best.weights * std, "bias": bias}
        info = ProbeInfo(tuple(coordinates), checkpoint, N, best.width, best.ridge)
        return cls(info, {name: value.float().contiguous() for name, value in tensors.items()})


_TENSORS = ("mean", "scale", "centres", "weights", "bias")


def _kernel(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """Returns how near x (N, D) is to each centre (K, D), as (N, K) from 0 to 1."""
    return torch.exp(-0.5 * (torch.cdist(x, centres) / width).square())


def _features(x: Tensor, centres: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Returns features (N, K) whose products are the kernel's, and the root (K, K) that makes them of it (Nyström)."""
    kernel = _kernel(centres, centres, width)
    kernel.diagonal().add_(_JITTER)
    root = torch.linalg.cholesky(kernel)
    return torch.linalg.solve_triangular(root, _kernel(x, centres, width).T, upper=False).T, root


class _Regression(NamedTuple):
    """A regression of targets (N, T) on a kernel of centres (K, D)."""

    missed: float  # mean square of what it was not fitted on
    width: float
    ridge: float
    centres: Tensor
    weights: Tensor  # (K, T), fitted on all
    unseen: Tensor  # (N, T) what is read of each label by a regression that did not see its fold


def _best_regression(x: Tensor, y: Tensor, fold: Tensor, on: Tensor) -> _Regression:
    """Returns the regression of y (N, T) on x (N, D) that misses least what it did not see, where it is judged (N,)."""
    centres = x[torch.linspace(0, len(x) - 1, min(len(x), MOST_CENTRES)).long()]
    tried = []
    for width, ridge in _TRIED:
        features, root = _features(x, centres, width)
        unseen, fitted = _ridge_regression(features, y, fold, ridge)
        weights = torch.linalg.solve_triangular(root.T, fitted, upper=True)
        missed = float((unseen - y)[on].square().mean())
        tried.append(_Regression(missed, width, ridge, centres, weights, unseen))
    return min(tried, key=lambda each: each.missed)


def _ridge_regression(features: Tensor, y: Tensor, fold: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Returns what is read of y (N, T) where it was not fitted, and the weights (K, T) that are fitted on all."""
    parts = [(fold == k) for k in range(int(fold.max()) + 1)]
    grams = torch.stack([features[part].T @ features[part] for part in parts])
    products = torch.stack([features[part].T @ y[part] for part in parts])
    total, product = grams.sum(0), products.sum(0)
    total.diagonal().add_(ridge)
    guess = torch.empty_like(y)
    for part, gram, own in zip(parts, grams, products, strict=True):
        guess[part] = features[part] @ _solved(total - gram, product - own)
    return guess, _solved(total, product)


def _solved(gram: Tensor, product: Tensor) -> Tensor:
    return torch.cholesky_solve(product, torch.linalg.cholesky(gram))


def _judged(name: str, is_angle: bool, label: Tensor, missed: Tensor) -> Coordinate:
    """Returns what there is to know of a number, from its labels (N,), and by how much some (M,) were missed."""
    wraps, label = _unrolled(label) if is_angle else (False, label)
    low, high = (float(end) for end in label.aminmax())
    far = (wrapped(missed) if is_angle else missed).abs()
    error = max(float(far.quantile(0.9)), 1e-9 * (high - low))  # what is never missed still has a unit
    return Coordinate(name, is_angle, wraps, low, high, float(far.median()), error)


def _unrolled(angle: Tensor) -> tuple[bool, Tensor]:
    """Says whether labels (N,) of an angle are of one that can turn all the way; returns them between −π and π if so,
    and otherwise without a leap where they pass from one of these to the other.
    """
    turn = 2 * math.pi
    places = torch.remainder(angle, turn).sort().values
    gaps = torch.cat([places.diff(), places[:1] + turn - places[-1:]])
    by_chance = turn * (math.log(len(angle)) + 3) / len(angle)  # as wide as seldom among so many, drawn evenly
    if np.ptp(angle) >= turn or float(gaps.max()) < max(_BARRIER, min(by_chance, _WIDEST_BARRIER)):
        return True, wrapped(angle)
    if np.ptp(angle) <= turn - float(gaps.max()) + 1e-9:  # as they stand
        return False, angle
    first = places[(int(gaps.argmax()) + 1) % len(places)]
    middle = first + (turn - gaps.max()) / 2
    return False, wrapped(middle) + wrapped(angle - middle)


def _encoded(values: NDArray[np.float64], is_angle: Sequence[bool]) -> NDArray[np.float64]:
    """Returns numbers (N, P) as what is regressed on (N, T): angles as cosine and sine."""
    parts = [[np.cos(v), np.sin(v)] if angle else [v] for v, angle in zip(values.T, is_angle, strict=True)]
    return np.stack([column for part in parts for column in part], axis=1)


def _decoded(targets: Tensor, is_angle: Sequence[bool]) -> Tensor:
    """Returns the numbers (N, P) of what is regressed on (N, T)."""
    columns = iter(targets.unbind(-1))
    firsts = ((next(columns), angle) for angle in is_angle)
    return torch.stack([torch.atan2(next(columns), first) if angle else first for first, angle in firsts], dim=-1)
