"""A data set of any format that is read, as one of LeRobot's: `jepa-mpc convert lerobot DATA.h5 --output FOLDER`.

Format v3: numbers in Parquet files, pictures as video, many episodes in a file, and what leads to them under `meta`.
LeRobot's own reader takes it from there. A row of ours is a frame of theirs, blocks of actions side by side. They know
no frame without an action, so a last picture, from which nothing was done, gets the action before it once more.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("convert lerobot")

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from jepa_mpc.cli import parse
from jepa_mpc.files import refuse_existing, require_folder, write_json
from jepa_mpc.settings import Natural, Positive, Range, checked
from jepa_mpc.world_model.convert.lerobot_stats import Stats, episode_stats, pooled
from jepa_mpc.world_model.data.dataset import MOST, spread
from jepa_mpc.world_model.data.extras import needed
from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.sources import Numbers, Source, done, open_source
from jepa_mpc.world_model.data.sources.lerobot import ACTION, CAMERA, INFO, STATE
from jepa_mpc.world_model.data.video import VideoWriter

VERSION = "v3.0"
FILES_A_CHUNK = 1000
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{_FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{_FILE}.parquet"
TASKS_PATH = "meta/tasks.parquet"
DATA_MB, VIDEO_MB = 100, 200  # of a file, at which LeRobot begins the next; ours has all numbers in one
_FIRST = {"chunk_index": 0, "file_index": 0}
_LOOKED_AT = 100  # pictures of an episode, for the statistics

Quality = Annotated[int, Range(0, 51)]


@dataclass(frozen=True)
class LeRobotConfig:
    """Write a data set in LeRobot's format v3."""

    source: Positional[Path]
    """Folder or file, of any format that is read."""
    output: Path
    """Folder to write, which must not be there yet."""
    format: str | None = None
    """Format of the source by name (a wrong one lists them), or `module:class`; the one it looks like unless given."""
    task: str | None = None
    """What is done in it, in words; the source's task unless given."""
    fps: Positive | None = None
    """Rows a second; as the source says unless given."""
    crf: Quality = 18
    """Of the video, from 0, the finest, to 51."""
    drop_episodes: tuple[Natural, ...] = ()
    """Episodes to leave out, by number."""


def convert(config: LeRobotConfig) -> Path:
    """Writes the data set, and returns its folder."""
    config = checked(config)
    refuse_existing(config.output)
    require_folder(config.output.parent, f"--output {config.output}")
    needed("pyarrow", "data", "to write Parquet files")
    needed("av", "data", "to write video")
    source = open_source(config.source, config.format)
    if config.fps is None and not source.row_seconds:
        raise DatasetError(f"{source.path} does not say how many rows it has a second; say --fps")
    fps = Fraction(config.fps or 1 / source.row_seconds).limit_denominator(1001)
    kept = source.without(config.drop_episodes)
    scratch = config.output.with_name(f".{config.output.name}.{secrets.token_hex(8)}.unfinished")
    with contextlib.ExitStack() as failure:
        failure.callback(shutil.rmtree, scratch, ignore_errors=True)
        task = config.task or (source.path.resolve().stem if source.info.is_foreign else source.info.task)
        _write(source, kept, scratch, fps, task, config.crf)
        os.replace(scratch, config.output)
        failure.pop_all()
    return config.output


def _write(source: Source, kept: Sequence[int], folder: Path, fps: Fraction, task: str, crf: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm import tqdm

    data, meta = folder / DATA_PATH.format(**_FIRST), folder / EPISODES_PATH.format(**_FIRST)
    for path in (data, meta):
        path.parent.mkdir(parents=True)
    videos = {camera: _Videos(folder, _key(camera), fps, crf) for camera in source.cameras}
    told: list[dict[str, Any]] = []
    stats: list[Stats] = []
    frames, numbers = 0, source.numbers(kept[0])
    schema = _table(_columns(numbers, 0, 0, fps)).schema
    with contextlib.ExitStack() as files:
        for video in videos.values():
            files.callback(video.close)
        rows = files.enter_context(pq.ParquetWriter(str(data), schema))
        for number, index in enumerate(tqdm(kept, desc="writing", unit="episode")):
            columns = _columns(_complete(source, index), number, frames, fps)
            rows.write_table(_table(columns))
            count = len(columns["index"])
            episode: dict[str, Any] = {"episode_index": number, "tasks": [task], "length": count}
            episode |= {f"{kind}/{name}": place for kind in ("data", "meta/episodes") for name, place in _FIRST.items()}
            episode |= {"dataset_from_index": frames, "dataset_to_index": frames + count}
            shown = {}
            for camera, video in videos.items():
                place, shown[_key(camera)] = video.add(source, index, camera)
                episode |= {f"videos/{_key(camera)}/{name}": value for name, value in place.items()}
            stats.append(episode_stats(columns, shown))
            told.append(
                episode | {f"stats/{key}/{name}": of for key, each in stats[-1].items() for name, of in each.items()}
            )
            frames += count
    pq.write_table(pa.Table.from_pylist(told), meta)
    _write_tasks(folder / TASKS_PATH, task)
    write_json(folder / "meta/stats.json", pooled(stats))
    features = {_key(camera): video.feature() for camera, video in videos.items()} | _features(source, numbers)
    info = {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": len(kept),
        "total_frames": frames,
        "total_tasks": 1,
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": _number(fps),
        "splits": {"train": f"0:{len(kept)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }
    write_json(folder / INFO, info)


class _Videos:
    """The videos of one camera, one after another; an episode is never cut."""

    def __init__(self, folder: Path, key: str, fps: Fraction, crf: int):
        self._folder, self._key, self._fps, self._crf = folder, key, fps, crf
        self._count = 0
        self._writer: VideoWriter | None = None

    def add(self, source: Source, index: int, camera: str) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Writes an episode's pictures; returns where they are, as `meta/episodes` says it, and some of them, small."""
        wanted, shown = set(spread(np.arange(source.lengths[index]), _LOOKED_AT).tolist()), []
        if self._writer is not None and self._writer.path.stat().st_size >= VIDEO_MB * 2**20:
            self.close()
        for row, picture in enumerate(source.pictures(index, camera)):
            self._writer = writer = self._writer or self._next(picture)
            writer.write(picture)
            if row in wanted:
                step = max(1, max(picture.shape[:2]) // 150)
                shown.append(picture[::step, ::step])
        end = writer.num_frames / self._fps
        begin = end - int(source.lengths[index]) / self._fps
        return {**self._place, "from_timestamp": float(begin), "to_timestamp": float(end)}, np.stack(shown)

    def feature(self) -> dict[str, Any]:
        """Returns what `info.json` says of the videos."""
        about = {
            "video.height": self._size[0],
            "video.width": self._size[1],
            "video.codec": "h264",
            "video.pix_fmt": self._pix_fmt,
            "video.is_depth_map": False,
            "video.fps": _number(self._fps),
            "video.channels": 3,
            "has_audio": False,
        }
        return {"dtype": "video", "shape": [*self._size, 3], "names": ["height", "width", "channels"], "info": about}

    def close(self) -> None:
        """Closes the video that is being written."""
        if self._writer is not None:
            writer, self._writer, self._count = self._writer, None, self._count + 1
            writer.close()

    def _next(self, picture: NDArray[np.uint8]) -> VideoWriter:
        chunk, file = divmod(self._count, FILES_A_CHUNK)
        self._place = {"chunk_index": chunk, "file_index": file}
        self._size: tuple[int, int] = (picture.shape[0], picture.shape[1])
        path = self._folder / VIDEO_PATH.format(video_key=self._key, **self._place)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = VideoWriter(path, self._fps, self._size, self._crf)
        self._pix_fmt = writer.pix_fmt
        return writer


def _features(source: Source, numbers: Numbers) -> dict[str, dict[str, Any]]:
    """Returns what `info.json` says of the columns of numbers."""

    def vectors(names: Sequence[str], count: int) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [count], "names": [*names] if len(names) == count else None}

    felt = _felt(numbers)
    names = source.state_names if numbers.proprio is None else source.proprio_names
    features = {STATE: vectors(names, felt.shape[1])} if felt.shape[1] else {}
    features |= {ACTION: vectors(source.action_names, numbers.action.shape[1])}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    return features


def _felt(numbers: Numbers) -> NDArray[np.float64]:
    """Returns what LeRobot calls the state: what the robot feels, or the state where that was not recorded."""
    return numbers.state if numbers.proprio is None else numbers.proprio


def _complete(source: Source, index: int) -> Numbers:
    """Returns an episode's numbers, with an action in every row. Raises `DatasetError` where some are none."""
    numbers = source.numbers(index)
    if 1 < len(numbers.action) > len(done(numbers.action)):
        numbers = numbers._replace(action=np.concatenate([numbers.action[:-1], numbers.action[-2:-1]]))
    if not (np.abs(numbers.action) < MOST).all() or not (np.abs(_felt(numbers)) < MOST).all():
        raise DatasetError(
            f"{source.path}: actions or state of episode {index} are not all numbers; leave it out by "
            f"--drop-episodes {index}"
        )
    return numbers


def _columns(numbers: Numbers, number: int, first: int, fps: Fraction) -> dict[str, NDArray[Any]]:
    """Returns an episode's columns (T, W), a row a frame."""
    frame = np.arange(len(numbers.action))
    vectors = {STATE: _felt(numbers), ACTION: numbers.action, "timestamp": (frame / float(fps))[:, None]}
    columns: dict[str, NDArray[Any]] = {
        name: each.astype(np.float32) for name, each in vectors.items() if each.shape[1]
    }
    indices = {"frame_index": frame, "episode_index": np.full_like(frame, number), "index": first + frame}
    return columns | {name: each[:, None] for name, each in {**indices, "task_index": 0 * frame}.items()}


def _table(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Returns columns (T, W) as a table: numbers where W is 1, else lists of that length."""
    import pyarrow as pa

    flat = {name: pa.array(values.ravel()) for name, values in columns.items()}
    widths = {name: values.shape[1] for name, values in columns.items()}
    return pa.table(
        {n: each if widths[n] == 1 else pa.FixedSizeListArray.from_arrays(each, widths[n]) for n, each in flat.items()}
    )


def _key(camera: str) -> str:
    """Returns what LeRobot calls a camera's column; its names have no slashes."""
    return camera if camera.startswith(CAMERA) else CAMERA + camera.replace("/", ".")


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def _write_tasks(path: Path, task: str) -> None:
    """Writes the one task, as a frame of pandas' whose index it is: LeRobot reads it so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = "__index_level_0__"
    about = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": stored, "metadata": None}
        for name, field, kind, stored in (
            ("task_index", "task_index", "int64", "int64"),
            (None, index, "unicode", "object"),
        )
    ]
    pandas = {"index_columns": [index], "column_indexes": [], "columns": about, "pandas_version": "2.3.3"}
    table = pa.table({"task_index": pa.array([0]), index: pa.array([task])})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def main(args: Sequence[str]) -> None:
    path = convert(parse(LeRobotConfig, args))
    print(f"wrote {path}")  # noqa: T201
