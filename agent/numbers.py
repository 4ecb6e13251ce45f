"""Goals and limits by numbers: `shoulder=0.3`, and `shoulder=-1..1` to stay within, read off what a model foresees.

The agent sees pictures alone: a probe, fitted on the labels of some of them, reads the numbers off embeddings, also
predicted ones. All is measured in units of the probe's own error, so that what is read badly counts little as a goal,
and limits are kept to with twice that to spare.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from jepa_mpc import places
from jepa_mpc.errors import UserError
from jepa_mpc.settings import NonNegative
from jepa_mpc.world_model.probe import Coordinate, Probe

LIMIT_WEIGHT = 10.0
_MARGIN = 2.0  # of the probe's errors to a limit: one of reading, and as much of what is foreseen
_LOOKS = 5  # within a block, at where limits are held
GoalState = Mapping[str, ArrayLike]  # by coordinate a number, or one an episode (B,); those not named are free
Box = Mapping[str, tuple[float, float]]  # by coordinate the least and the most; infinite where there is no end


class _Side(NamedTuple):
    """One coordinate's part in a box: from the least to the most, of an angle the way round that leads up."""

    column: int
    coordinate: Coordinate
    low: float
    high: float

    def depth(self, numbers: Tensor) -> Tensor:
        """Returns how deep inside (...) numbers (..., P) lie, in units of the error; below 0 they are outside."""
        value = numbers[..., self.column]
        if self.coordinate.wraps:
            half = (self.high - self.low) / 2
            depth = half - self.coordinate.difference(value, self.low + half).abs()
        else:
            depth = torch.minimum(value - self.low, self.high - value)
        return depth / self.coordinate.p90


class Numbers:
    """Reads a probe's numbers off embeddings: how far they are from a goal's, and from where they must be.

    Args:
        probe: what reads them.
        keep: ranges to stay within, each of them.
        avoid: boxes to stay out of: where all of a box's ranges hold at once.
        weight: of how far a plan goes where it must not, beside how far it is from the goal.
    """

    def __init__(self, probe: Probe, keep: Box | None = None, avoid: Sequence[Box] = (), weight: float = LIMIT_WEIGHT):
        self.probe, self.weight = probe, weight
        self._keep = [self._sides({name: ends}, "keep") for name, ends in (keep or {}).items()]
        self._avoid = [self._sides(box, "avoid") for box in avoid]
        for (side,) in self._keep:
            if side.high - side.low < 2 * _MARGIN * side.coordinate.p90:
                warnings.warn(
                    f"keep {side.coordinate.name}: the range is narrower than twice the probe's error on both sides, "
                    f"±{_MARGIN * side.coordinate.p90:.2g}; its middle is kept to",
                    stacklevel=2,
                )

    @classmethod
    def load(
        cls,
        path: Path | str,
        checkpoint: Path | str,
        keep: Box | None = None,
        avoid: Sequence[Box] = (),
        weight: float = LIMIT_WEIGHT,
    ) -> "Numbers":
        """Returns the numbers of a probe's file, which must be of that checkpoint."""
        return cls(Probe.load(path, places.checkpoint(checkpoint)), keep, avoid, weight)

    @property
    def limited(self) -> bool:
        """Says whether there is anywhere that must not be gone."""
        return bool(self._keep or self._avoid)

    def goal(self, wanted: GoalState, num_episodes: int) -> Tensor:
        """Returns goals (B, P), NaN where a number is free. Raises `UserError` on what is none, or must not be."""
        goal = torch.full((num_episodes, len(self.probe.coordinates)), math.nan)
        if not wanted:
            raise UserError("a goal by numbers must name at least one")
        for name, values in wanted.items():
            index = self.probe.index(name, "goal")
            coordinate = self.probe.coordinates[index]
            try:
                given = np.broadcast_to(np.asarray(values, float), num_episodes)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"goal {name} must be a number, or one of each of {num_episodes} episodes, not {values!r}"
                ) from error
            if not np.isfinite(given).all():
                raise UserError(f"goal {name} must be finite, not {given[~np.isfinite(given)][0]}")
            _require_radians(coordinate, given, f"goal {name}={given[np.abs(given).argmax()]:g}")
            goal[:, index] = asked = coordinate.normal(torch.tensor(given))
            low, high = coordinate.low - coordinate.p90, coordinate.high + coordinate.p90
            if (beyond := (asked < low) | (asked > high)).any():
                warnings.warn(
                    f"goal {name}={float(asked[beyond][0]):g} is outside what the probe was fitted on, "
                    f"{coordinate.low:.4g} to {coordinate.high:.4g}; it may not be read there",
                    stacklevel=3,
                )
        if (outside := (self.inside(goal, free=True) < 0).nonzero()).numel():
            named = ", ".join(f"{name}={np.ravel(value)[0]:g}" for name, value in wanted.items())
            which = f" of episode {int(outside[0])}" if num_episodes > 1 else ""
            raise UserError(f"goal {named}{which} lies where --keep or --avoid forbids to go; move it, or the limit")
        return goal

    def distance(self, numbers: Tensor, goal: Tensor) -> Tensor:
        """Returns how far (B, ...) numbers (B, ..., P) are from goals (B, P), in units of the probe's error."""
        goal = goal.view(len(goal), *(1,) * (numbers.ndim - 2), -1)
        parts = [
            torch.where(goal[..., i].isnan(), 0, each.difference(numbers[..., i], goal[..., i].nan_to_num()) / each.p90)
            for i, each in enumerate(self.probe.coordinates)
        ]
        return torch.stack(parts, dim=-1).norm(dim=-1)

    def inside(self, numbers: Tensor, free: bool = False) -> Tensor:
        """Returns how deep (...) numbers (..., P) lie where they may be, in units of the probe's error; below 0 they
        are where they must not. If numbers may be `free` (NaN), those are no reason for it.
        """
        inside = numbers.new_full(numbers.shape[:-1], math.inf)
        for sides in self._keep:
            (depth,) = (side.depth(numbers) for side in sides)
            inside = torch.minimum(inside, depth.nan_to_num(math.inf) if free else depth)
        for sides in self._avoid:
            depth = torch.stack([side.depth(numbers) for side in sides]).amin(0)
            inside = torch.minimum(inside, (-depth).nan_to_num(math.inf) if free else -depth)
        return inside

    def toll(self, numbers: Tensor, now: Tensor) -> Tensor:
        """Returns by how much (B, S) futures' numbers (B, S, H, P) go too far at their worst, in units of the probe's
        error; it begins two units before the limit.

        Notable: the model foresees the ends of blocks alone. What lies between, from the numbers of now (B, P) on, is
        taken for straight, so that a block does not leap through a corner that it would be seen in.
        """
        ends = torch.cat([now[:, None, None].expand(*numbers.shape[:2], 1, -1), numbers], dim=2)
        moves = [each.difference(numbers[..., i], ends[:, :, :-1, i]) for i, each in enumerate(self.probe.coordinates)]
        shares = torch.linspace(1 / _LOOKS, 1, _LOOKS, device=numbers.device).view(-1, 1, 1)
        places = ends[:, :, None, :-1] + shares * torch.stack(moves, dim=-1)[:, :, None]  # (B, S, looks, H, P)
        return (_MARGIN - self.inside(places)).relu().amax((-1, -2))

    def _sides(self, box: Box, asked_by: str) -> list[_Side]:
        """Returns a box's sides. Raises `UserError` on what is none."""
        sides = []
        for name, ends in box.items():
            try:
                low, high = map(float, ends)
            except (TypeError, ValueError) as error:
                raise UserError(f"{asked_by} {name} must be two numbers, least and most, not {ends!r}") from error
            index = self.probe.index(name, asked_by)
            coordinate, said = self.probe.coordinates[index], f"{asked_by} {name}={low:g}..{high:g}"
            if not low < high:
                raise UserError(f"{said} holds nothing; say the lower number first")
            if math.isinf(low) and math.isinf(high):
                raise UserError(f"{said} holds everything; give it an end")
            _require_radians(coordinate, np.array([end for end in (low, high) if math.isfinite(end)]), said)
            if coordinate.wraps and not high - low < 2 * math.pi:
                raise UserError(f"{said} goes all the way round; give an angle two ends, less than 2π apart")
            if not coordinate.wraps and (low > coordinate.high or high < coordinate.low):
                warnings.warn(
                    f"{said} holds nothing that the probe was fitted on, {coordinate.low:.4g} to {coordinate.high:.4g}",
                    stacklevel=3,
                )
            sides.append(_Side(index, coordinate, low, high))
        if not sides:
            raise UserError(f"{asked_by} must name at least one number")
        return sides


def _require_radians(coordinate: Coordinate, given: NDArray[np.float64], said: str) -> None:
    """Raises `UserError` on an angle of more than a turn."""
    if coordinate.is_angle and (np.abs(given) > 2 * math.pi).any():
        raise UserError(f"{said} is more than a turn; angles are in radians")


@dataclass(frozen=True)
class NumberOptions:
    """What a person asks for by numbers."""

    inline: ClassVar[bool] = True  # as in `settings.Choice`

    probe: Path | None = None
    """What reads numbers off embeddings, as `jepa-mpc fit-probe` has written it."""
    goal_state: tuple[str, ...] = ()
    """A goal by numbers, NAME=NUMBER …; what is not named is free."""
    keep: tuple[str, ...] = ()
    """Ranges to stay within, NAME=LEAST..MOST …, of which an end may be left out."""
    avoid: tuple[str, ...] = ()
    """A box to stay out of, NAME=LEAST..MOST …: where all of these hold at once."""
    limit_weight: NonNegative = LIMIT_WEIGHT
    """Weight of how far a plan goes where it must not, in units of the probe's error, beside the distance."""

    def numbers(self, checkpoint: Path | str) -> Numbers | None:
        """Returns what these ask for; None if nothing. Raises `UserError` on options that lack the others."""
        asked = [name for name in ("goal_state", "keep", "avoid") if getattr(self, name)]
        if self.probe is None and asked:
            raise UserError(f"--{asked[0].replace('_', '-')} needs a probe that reads it: fit one, and give --probe")
        if self.probe is None:
            return None
        keep, box = read_box(self.keep, "--keep"), read_box(self.avoid, "--avoid")
        return Numbers.load(self.probe, checkpoint, keep, [box] if box else [], self.limit_weight)


def read_goal(words: Sequence[str]) -> dict[str, float | None]:
    """Returns the numbers of `--goal-state NAME=NUMBER …` by name; None of a name alone. Raises `UserError`."""
    goal: dict[str, float | None] = {}
    for word in words:
        name, is_given, number = word.partition("=")
        _once(goal, name, word, "--goal-state")
        goal[name] = _number(number, word, "--goal-state", "NAME=NUMBER") if is_given else None
    if len({value is None for value in goal.values()}) > 1:
        raise UserError("--goal-state: give each name a number, or none")
    return goal


def read_box(words: Sequence[str], option: str) -> dict[str, tuple[float, float]]:
    """Returns the ranges of `--keep NAME=LEAST..MOST …` by name; an end left out is infinite. Raises `UserError`."""
    box: dict[str, tuple[float, float]] = {}
    for word in words:
        (name, _, ends), form = word.partition("="), "NAME=LEAST..MOST"
        _once(box, name, word, option)
        low, is_range, high = ends.partition("..")
        if not is_range:
            raise UserError(f"{option} {word!r} is no range; write {form}, such as shoulder=-1..1")
        least, most = (_number(end, word, option, form) if end else None for end in (low, high))
        box[name] = -math.inf if least is None else least, math.inf if most is None else most
    return box


def _once(there: Mapping[str, object], name: str, word: str, option: str) -> None:
    if not name or name in there:
        raise UserError(f"{option} {word!r} must name a number, and each but once, without spaces about the =")


def _number(text: str, word: str, option: str, form: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{option} {word!r}: {text!r} is no finite number; write {form}")
    return number
