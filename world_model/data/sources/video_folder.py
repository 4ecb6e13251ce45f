"""A folder of video and CSV: `000.mp4` and `000.csv` an episode, or `000.front.mp4` and so on for several cameras.

The CSV has a header. Columns that begin with `action` are the actions, with `state` the state, with `proprio` what the
robot felt of itself; `timestamp`, if it is there, is in seconds from the video's first picture, and each row gets the
picture nearest in time. Without it, rows are pictures, one for one. What is empty is NaN. Values stand between commas,
semicolons or tabs.
"""

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.dataset import recorded_info
from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.sources.base import Numbers, Source, source
from jepa_mpc.world_model.data.video import CONTAINERS, VideoInfo, frames, frames_at, video_info

_ONLY = "pixels"  # what the only camera is called
_TIME = "timestamp"
_CLOCK = 1e8  # seconds, three years: a timestamp of so many was read off a clock
_FINER = 100  # times the video's length, which timestamps go beyond that are not in seconds
_UNEVEN = 0.03  # share by which videos of one rate may differ in what they say of it


@source("video")
class VideoFolder(Source):
    """One folder, in which episodes are in the order of their names."""

    looks = "a folder of videos and CSV files of their names: 000.mp4, 000.csv"

    def __init__(self, path: Path):
        super().__init__(path)
        self._tables = _csv_files(path)
        self._videos = [_videos(table) for table in self._tables]
        _refuse_orphans(path, self._videos)
        self.cameras = tuple(self._videos[0])
        self._header = _header(self._tables[0])
        self.action_names, self.state_names, self.proprio_names = (
            tuple(name for name in self._header if name.startswith(kind)) for kind in ("action", "state", "proprio")
        )
        if not self.action_names:
            raise DatasetError(
                f"{self._tables[0]} has no column that begins with 'action', but {', '.join(self._header)}; name one so"
            )
        self._fps = fps = video_info(self._videos[0][self.cameras[0]]).fps
        self.lengths = np.array([self._check(index) for index in range(len(self._tables))], np.int64)
        seconds = self.numbers(0).seconds
        steps = np.diff(seconds) if seconds is not None else np.empty(0)
        step = float(np.median(steps)) if len(steps) else (1 / fps if fps else 0.0)
        self.info = recorded_info(len(self.state_names), step_seconds=step if step > 0 else 0.0)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and any(_videos(table) for table in _csv_files(path))

    def read(self, episode: int) -> Numbers:
        rows = _rows(self._tables[episode])
        at = {name: index for index, name in enumerate(self._header)}
        action, state = (rows[:, [at[name] for name in names]] for names in (self.action_names, self.state_names))
        felt = rows[:, [at[name] for name in self.proprio_names]] if self.proprio_names else None
        return Numbers(action, state, rows[:, at[_TIME]] if _TIME in at else None, felt)

    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        video, seconds = self._videos[episode][camera], self.numbers(episode).seconds
        if seconds is None:
            yield from frames(video)
        else:
            info = video_info(video)
            yield from frames_at(video, info.start + seconds, 1 / info.fps if info.fps else self.info.step_seconds)

    def _check(self, episode: int) -> int:
        """Returns an episode's rows. Raises `DatasetError` where header, cameras or number of pictures do not fit."""
        table, videos = self._tables[episode], self._videos[episode]
        if (header := _header(table)) != self._header:
            raise DatasetError(
                f"{table} has columns {', '.join(header)}, not {', '.join(self._header)}; make them equal"
            )
        if tuple(videos) != self.cameras:
            names = ", ".join(videos) or "none"
            raise DatasetError(
                f"{table} has videos of cameras {names}, not {', '.join(self.cameras)}; put them beside it"
            )
        rows = _rows(table)
        for video in videos.values():
            told = video_info(video)
            if _TIME in header:
                _require_seconds(table, rows[:, header.index(_TIME)], video, told)
                continue
            if told.num_frames != len(rows):
                raise DatasetError(
                    f"{video} has {told.num_frames} pictures and {table.name} {len(rows)} rows; make them equal, or "
                    f"add a column {_TIME!r} in seconds"
                )
            if abs(told.fps - self._fps) > _UNEVEN * self._fps:
                raise DatasetError(
                    f"{video} has {told.fps:g} pictures a second, not {self._fps:g} as the first; write both at one "
                    f"rate, or add a column {_TIME!r} in seconds"
                )
        return len(rows)


def _require_seconds(table: Path, times: NDArray[np.float64], video: Path, told: VideoInfo) -> None:
    """Raises `DatasetError` on times (N,) that are no seconds from a video's first picture, but finer or a clock's."""
    if times[0] > _CLOCK:
        raise DatasetError(
            f"{table}: column {_TIME!r} begins at {times[0]:.0f} s, as a clock does; take off the moment of the "
            "video's first picture"
        )
    if told.fps and times[-1] > _FINER * (length := told.num_frames / told.fps):
        raise DatasetError(
            f"{table}: column {_TIME!r} goes on to {times[-1]:g} s, and {video.name} is {length:.3g} s long; write "
            "seconds, not milliseconds"
        )


def _csv_files(path: Path) -> list[Path]:
    return sorted(each for each in path.glob("*.csv") if each.is_file())


def _videos(table: Path) -> dict[str, Path]:
    """Returns the videos of a table by camera: NAME.mp4, or NAME.CAMERA.mp4 for each."""
    found = {}
    for path in sorted(table.parent.iterdir()):
        if path.suffix.lower() in CONTAINERS and (path.stem == table.stem or path.stem.startswith(f"{table.stem}.")):
            found[path.stem.removeprefix(table.stem).removeprefix(".") or _ONLY] = path
    return found


def _refuse_orphans(path: Path, videos: Sequence[dict[str, Path]]) -> None:
    """Raises `DatasetError` on a video that has no table."""
    used = {video for each in videos for video in each.values()}
    for video in sorted(path.iterdir()):
        if video.suffix.lower() in CONTAINERS and video not in used:
            table = f"{video.name.partition('.')[0]}.csv"
            raise DatasetError(f"{video} has no table {table} beside it; write one, or take the video away")


@contextlib.contextmanager
def _opened(table: Path) -> Iterator[Any]:
    """Gives a table's rows of text, by whichever sign stands between the names in its first line."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        between = max(",;\t", key=file.readline().count)
        file.seek(0)
        yield csv.reader(file, delimiter=between)


def _header(table: Path) -> list[str]:
    with _opened(table) as reader:
        header = [name.strip() for name in next(reader, [])]
    if len(set(header)) != len(header) or not header:
        raise DatasetError(f"{table} must begin with a line of column names, each once; write one")
    return header


def _rows(table: Path) -> NDArray[np.float64]:
    """Returns the numbers below the header (N, C)."""
    header, rows = _header(table), []
    with _opened(table) as reader:
        next(reader)
        for row in filter(None, reader):
            if len(row) != len(header):
                raise DatasetError(
                    f"{table}, line {reader.line_num}: {len(row)} values, not {len(header)}; complete it"
                )
            try:
                rows.append(
                    [_number(value) if _is_ours(name) else 0.0 for name, value in zip(header, row, strict=True)]
                )
            except ValueError as error:
                raise DatasetError(f"{table}, line {reader.line_num}: {error}; write a number or nothing") from error
    if not rows:
        raise DatasetError(f"{table} has no rows; delete it with its video")
    return np.array(rows)


def _number(value: str) -> float:
    return float(value) if value.strip() else math.nan


def _is_ours(name: str) -> bool:
    return name.startswith(("action", "state", "proprio")) or name == _TIME
