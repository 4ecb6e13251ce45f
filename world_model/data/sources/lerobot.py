"""LeRobot's data sets, format v3 and v2: numbers in Parquet files, pictures in video or in those files.

`meta/info.json` says where things lie: a row is a frame, and in v3 one file holds many episodes one after another. What
`meta/episodes` says of an episode leads to its rows and to its stretch of the video.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.files import read_json
from jepa_mpc.settings import Count, Positive, read
from jepa_mpc.world_model.data.dataset import recorded_info
from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.pictures import decode
from jepa_mpc.world_model.data.sources.base import Numbers, Source, numbered, source
from jepa_mpc.world_model.data.tables import Parquet, json_lines
from jepa_mpc.world_model.data.video import frames_at

INFO = "meta/info.json"
ACTION, STATE, CAMERA = "action", "observation.state", "observation.images."
_FIX = "copy the data set again"


@dataclass(frozen=True)
class Feature:
    """What `info.json` says of a column."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Any = None


@dataclass(frozen=True)
class Info:
    """What `info.json` says that is needed here."""

    codebase_version: str
    fps: Positive
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: Count = 1000


@source("lerobot")
class LeRobot(Source):
    """One data set's folder."""

    looks = f"a folder with {INFO}"

    def __init__(self, path: Path):
        super().__init__(path)
        self._info = _read_info(path / INFO)
        features = self._info.features
        if ACTION not in features:
            raise DatasetError(f"{path / INFO} has no feature {ACTION!r}, but {', '.join(features)}; record one")
        keys = [key for key, feature in features.items() if feature.dtype in ("video", "image")]
        keys = [key for key in keys if not _is_depth(features[key])]
        if not keys:
            raise DatasetError(f"{path / INFO} has no feature that is video or image; record it with a camera")
        short = [key.removeprefix(CAMERA).removeprefix("observation.") for key in keys]
        self._keys = dict(zip(short if len(set(short)) == len(keys) else keys, keys, strict=True))
        self.cameras = tuple(self._keys)
        self.action_names = _names(features[ACTION])
        self.state_names = _names(features[STATE]) if STATE in features else ()
        self._episodes = _episodes_v2(path, self._info) if self._is_v2 else _episodes_v3(path, keys)
        self.lengths = self._episodes["length"]
        self._last: tuple[Path, dict[str, NDArray]] | None = None  # the numbers of the file last read
        width = self.numbers(0).state.shape[1]
        self.proprio_names = numbered(self.state_names, width)  # their state is what the robot's encoders tell
        self.info = recorded_info(width, step_seconds=1 / self._info.fps)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / INFO).exists()

    def read(self, episode: int) -> Numbers:
        columns, rows = self._rows(episode)
        state = columns.get(STATE, np.empty((len(columns["timestamp"]), 0)))[rows]
        return Numbers(columns[ACTION][rows], state, columns["timestamp"][rows, 0], state if STATE in columns else None)

    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        key, (_, rows) = self._keys[camera], self._rows(episode)
        if self._info.features[key].dtype == "video":
            begin = self._episodes.get(f"videos/{key}/from_timestamp", np.zeros(len(self.lengths)))[episode]
            seconds = self.numbers(episode).seconds
            assert seconds is not None
            yield from frames_at(self._video(episode, key), begin + seconds, 0.5 / self._info.fps)
            return
        file = Parquet(self._data(episode))
        for row, value in enumerate(file.values(key, rows.start, rows.stop - rows.start), rows.start):
            where = f"{file.path}: column {key!r}, row {row}"
            content = value.get("bytes") if isinstance(value, dict) else None
            if content is None:
                raise DatasetError(f"{where} holds no picture; {_FIX}")
            yield decode(content, where)

    @property
    def _is_v2(self) -> bool:
        return self._info.codebase_version.startswith("v2")

    def _rows(self, episode: int) -> tuple[dict[str, NDArray], slice]:
        """Returns the numbers of the file that holds an episode, and the rows in it."""
        path = self._data(episode)
        if self._last is None or self._last[0] != path:
            self._last = path, Parquet(path).read([ACTION, "timestamp", "episode_index"], [STATE])
        columns, number = self._last[1], self._episodes["episode_index"][episode]
        rows, wanted = np.flatnonzero(columns["episode_index"][:, 0] == number), self.lengths[episode]
        if len(rows) != wanted or rows[-1] - rows[0] != wanted - 1:
            raise DatasetError(
                f"{path} has {len(rows)} rows of episode {number}, not {wanted} one after another; {_FIX}"
            )
        return columns, slice(rows[0], rows[-1] + 1)

    def _data(self, episode: int) -> Path:
        return self._place(self._info.data_path, episode, "data")

    def _video(self, episode: int, key: str) -> Path:
        if self._info.video_path is None:
            raise DatasetError(f"{self.path / INFO} does not say where its videos are; {_FIX}")
        return self._place(self._info.video_path, episode, f"videos/{key}", video_key=key)

    def _place(self, template: str, episode: int, kind: str, **names: str) -> Path:
        """Returns where a file lies that holds an episode. Raises `DatasetError` if that is not in the folder."""
        number = int(self._episodes["episode_index"][episode])
        values: dict[str, Any] = {**names, "episode_index": number, "episode_chunk": number // self._info.chunks_size}
        for name in ("chunk_index", "file_index"):
            if f"{kind}/{name}" in self._episodes:
                values[name] = int(self._episodes[f"{kind}/{name}"][episode])
        place = PurePosixPath(fill(template, values, self.path / INFO))
        if place.is_absolute() or ".." in place.parts:
            raise DatasetError(f"{self.path / INFO} leads out of its folder, to {place}; {_FIX}")
        return self.path / place


def fill(template: str, values: Mapping[str, Any], where: Path) -> str:
    """Returns a path for its template: `{name}`, or `{name:03d}` for a number of so many digits, and nothing more."""

    def filled(found: re.Match[str]) -> str:
        name, digits = found[1], found[2]
        if name not in values:
            raise DatasetError(f"{where}: nothing is known of {{{name}}} in {template!r}; {_FIX}")
        return f"{values[name]:0{digits}d}" if digits else str(values[name])

    path = re.sub(r"\{(\w+)(?::0?(\d)d)?\}", filled, template)
    if "{" in path or "}" in path:
        raise DatasetError(f"{where}: {template!r} is no path; {_FIX}")
    return path


def _read_info(path: Path) -> Info:
    """Returns what `info.json` says. Raises `DatasetError` on versions that are not read."""
    stored = read_json(path, "name a data set of LeRobot's")
    version = stored.get("codebase_version") if isinstance(stored, dict) else None
    if not isinstance(version, str) or not re.match(r"v(2|3)\.", version):
        raise DatasetError(
            f"{path} is of version {version}, and v3 and v2 are read; convert it with LeRobot's own tools"
        )
    known = {field.name for field in dataclasses.fields(Feature)}
    features = stored.get("features")
    if isinstance(features, dict) and all(isinstance(each, dict) for each in features.values()):
        features = {key: {name: each[name] for name in known & each.keys()} for key, each in features.items()}
    told = {field.name: stored[field.name] for field in dataclasses.fields(Info) if field.name in stored}
    return read(Info, {**told, "features": features}, path)


def _episodes_v3(path: Path, keys: list[str]) -> dict[str, NDArray]:
    """Returns what is said of the episodes (E,), by column."""
    places = ["data/chunk_index", "data/file_index"]
    videos = [f"videos/{key}/{name}" for key in keys for name in ("chunk_index", "file_index", "from_timestamp")]
    files = sorted((path / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{path / 'meta/episodes'} has no Parquet files; {_FIX}")
    parts = [Parquet(file).read(["episode_index", "length", *places], videos) for file in files]
    columns = {name: np.concatenate([part[name] for part in parts if name in part])[:, 0] for name in parts[0]}
    return _checked(columns, path / "meta/episodes")


def _episodes_v2(path: Path, info: Info) -> dict[str, NDArray]:
    """Returns what is said of the episodes (E,), by column; each has files of its own."""
    file = path / "meta/episodes.jsonl"
    rows = json_lines(file)
    try:
        columns = {name: np.array([float(row[name]) for row in rows]) for name in ("episode_index", "length")}
    except (TypeError, ValueError, LookupError) as error:
        raise DatasetError(f"{file} must have episode_index and length in every line; {_FIX}") from error
    return _checked(columns, file)


def _checked(columns: dict[str, NDArray], where: Path) -> dict[str, NDArray]:
    for name, values in columns.items():
        least = 1 if name == "length" else 0
        if not len(values) == len(columns["length"]) > 0 or not (values >= least).all() or not (values < 2**31).all():
            raise DatasetError(f"{where}: column {name!r} must be {least} or more for every episode; {_FIX}")
    order = np.argsort(columns["episode_index"], kind="stable")
    exact = ("from_timestamp",)
    return {
        name: values[order] if name.endswith(exact) else values[order].astype(np.int64)
        for name, values in columns.items()
    }


def _names(feature: Feature) -> tuple[str, ...]:
    """Returns what the numbers of a feature are called, one each, or nothing."""
    names = feature.names
    while isinstance(names, dict) and len(names) == 1:  # {"motors": [...]}
        (names,) = names.values()
    names = list(names) if isinstance(names, dict) else names
    if (
        isinstance(names, list)
        and len(names) == np.prod(feature.shape)
        and all(isinstance(each, str) for each in names)
    ):
        return tuple(names)
    return ()


def _is_depth(feature: Feature) -> bool:
    return isinstance(feature.info, dict) and bool(feature.info.get("video.is_depth_map"))
