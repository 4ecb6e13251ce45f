"""Recorded data, whatever their format: episodes of rows, each row a picture and the action taken from it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.registry import Registry
from jepa_mpc.world_model.data.dataset import DatasetInfo
from jepa_mpc.world_model.data.hdf5 import DatasetError

T = TypeVar("T", bound="type[Source]")


class Numbers(NamedTuple):
    """What was recorded in an episode beside its T pictures, as it was: not a number where that is what was recorded.

    The last action is NaN where none was recorded after the last picture.
    """

    action: NDArray[np.float64]  # (T, A), each taken from the picture of its row
    state: NDArray[np.float64]  # (T, Q)
    seconds: NDArray[np.float64] | None  # (T,) since the episode began, where that was recorded
    proprio: NDArray[np.float64] | None = None  # (T, P) what the robot felt of itself, where that was recorded


class Source(ABC):
    """A data set on disk, opened; nothing of it is in memory but one episode's numbers.

    A subclass is one format. It sets the attributes below where it opens, and raises `DatasetError` of one line, which
    names file, column and fix, on what it cannot read.
    """

    looks: ClassVar[str]  # what is recognised, in words
    info: DatasetInfo  # what the data say of themselves
    cameras: tuple[str, ...]  # by name
    lengths: NDArray[np.int64]  # (E,) rows of each episode
    action_names: tuple[str, ...] = ()  # of the A numbers, where they are said
    state_names: tuple[str, ...] = ()
    proprio_names: tuple[str, ...] = ()  # of the P numbers; none where nothing was felt
    randomised: frozenset[int] = frozenset()  # episodes whose looks were drawn at random

    @abstractmethod
    def __init__(self, path: Path):
        self.path = path

    @property
    def row_seconds(self) -> float:
        """Returns how long a row lasts; 0 where nobody says."""
        return self.info.step_seconds * (self.info.action_block or 1)

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Says whether a path is of this format, by its names."""

    @abstractmethod
    def read(self, episode: int) -> Numbers:
        """Returns what was recorded in an episode beside its pictures, which should be a row each."""

    @abstractmethod
    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Yields an episode's pictures (H, W, 3) uint8, which should be one a row."""

    def numbers(self, episode: int) -> Numbers:
        """Returns what was recorded in an episode beside its pictures. Raises `DatasetError` unless it is a row for
        each, and as wide as in the episode first read.
        """
        found, rows = self.read(episode), int(self.lengths[episode])
        widths = found.action.shape[1], found.state.shape[1]
        self._widths = getattr(self, "_widths", widths)
        if widths != self._widths or {len(each) for each in found if each is not None} != {rows}:
            raise DatasetError(
                f"{self.path}: episode {episode} has {len(found.action)} actions of {widths[0]} numbers and states of "
                f"{widths[1]}, not {rows} of {self._widths[0]} and {self._widths[1]}; leave it out by --drop-episodes "
                f"{episode}"
            )
        return found

    def pictures(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Yields an episode's pictures (H, W, 3), one a row and all of one size. Raises `DatasetError` otherwise."""
        rows, count = int(self.lengths[episode]), 0
        sizes: list[tuple[int, int]] = []
        for count, picture in enumerate(self.stream(episode, camera), 1):
            height, width, _ = picture.shape
            sizes = sizes or [(width, height)]
            if count > rows or sizes != [(width, height)]:
                sizes.append((width, height))
                break
            yield picture
        if count != rows or len(sizes) > 1:
            more = "" if count < rows else " and more" if count > rows else f" of {sizes[0]} and {sizes[-1]} pixels"
            raise DatasetError(
                f"{self.path}: episode {episode} has {rows} rows and {min(count, rows)}{more} pictures of camera "
                f"{camera!r}; leave it out by --drop-episodes {episode}"
            )

    def chosen(self, names: str | None) -> list[str]:
        """Returns the cameras of these names, with a + between them, or the only one. Raises `DatasetError`, which
        lists them, otherwise.
        """
        if names is None and len(self.cameras) == 1:
            return [*self.cameras]
        chosen = [names] if names in self.cameras else (names or "").split("+")
        unknown = next((name for name in chosen if name not in self.cameras), None)
        if unknown is None and len(set(chosen)) == len(chosen):
            return chosen
        wrong = f"has no camera {unknown!r}" if unknown else f"has each camera once, not as in {names!r}"
        wrong = wrong if names else "has several cameras"
        raise DatasetError(
            f"{self.path} {wrong}; choose by --camera one, or several with a + between them: {', '.join(self.cameras)}"
        )

    def without(self, dropped: Sequence[int]) -> list[int]:
        """Returns the episodes that are not dropped. Raises `DatasetError` if there is no such one, or none is left."""
        if out := [index for index in dropped if index >= len(self.lengths)]:
            raise DatasetError(f"--drop-episodes {out[0]}: {self.path} has {len(self.lengths)}, numbered from 0")
        kept = [index for index in range(len(self.lengths)) if index not in dropped]
        if not kept:
            raise DatasetError(f"{self.path} has no episode that is left; drop fewer")
        return kept


def done(action: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the actions (T, A) of all rows but a last from which nothing was done."""
    return action[:-1] if len(action) and not np.isfinite(action[-1]).all() else action


def numbered(names: Sequence[str], num: int) -> tuple[str, ...]:
    """Returns the names of what was felt where they are so many different ones, and else numbers."""
    return tuple(names) if len({*names}) == num else tuple(f"proprio {index}" for index in range(num))


def _must(value: object) -> str:
    return "" if isinstance(value, type) and issubclass(value, Source) else "be a subclass of Source"


SOURCES: Registry[type[Source]] = Registry("data format", must=_must)


def source(name: str) -> Callable[[T], T]:
    """Registers the format that is decorated so."""

    def register(cls: T) -> T:
        SOURCES.register(name, cls)
        return cls

    return register


def open_source(path: Path, kind: str | None = None) -> Source:
    """Opens recorded data, in the format of that name, or in the first that recognises them.

    Raises `DatasetError`, which says what can be read, if none does.
    """
    if not path.exists():
        raise DatasetError(f"there is no {path}; name a data set")
    names = SOURCES if kind is None else [kind]
    for format in map(SOURCES.__getitem__, names):
        if format.recognises(path):
            return format(path)
        if kind is not None:
            raise DatasetError(f"{path} is not of format {kind}, which is {format.looks}; name another --format")
    known = "; ".join(f"{name}: {SOURCES[name].looks}" for name in SOURCES)
    raise DatasetError(f"{path} is of no format that can be read ({known}); convert it to one of these")
