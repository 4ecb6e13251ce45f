"""HDF5 data sets: what is in a file, writing it, and drawing windows of one or several.

One row per action block (columns as le-wm and stable-worldmodel name them); episodes lie one after another:

    pixels       (N, H, W, 3) uint8    the picture at the start of the block; of several cameras `pixels/<camera>`, each
                                       a column of its own
    proprio      (N, P) float32        what the robot feels of itself then, if it tells; NaN where it does not
    action       (N, A) float32        the block's actions, one after another (A = action dim × block);
                                       NaN on an episode's last row, from which nothing was done
    observation  (N, Q + V) float32    qpos and qvel side by side
    qpos, qvel   (N, Q), (N, V) float64, if there is any
    ep_idx, step_idx  (N,) int64       episode, and environment step within it
    ep_len, ep_offset (E,) int64       rows of each episode, and where they begin
    ep_randomised (E,) int64           1 if the scene's looks were drawn at random; only where some were

Other state columns serve reports (linear probes), never learning. The attributes say where the data came from. Files of
le-wm and stable-worldmodel have no such attributes and a row for every step, of which a block takes `frameskip`.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.files import whole
from jepa_mpc.pictures import PictureStats
from jepa_mpc.registry import same
from jepa_mpc.settings import Count, Natural, NonNegative, read
from jepa_mpc.world_model.data.frames import Frames
from jepa_mpc.world_model.data.hdf5 import DatasetError, column, guarded, open_file, reserve, writing
from jepa_mpc.world_model.observation import Observation

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
FRAMESKIP = 5  # of le-wm's and stable-worldmodel's training
STATES = ("qpos", "state", "observation", "proprio")  # what their files may hold of the state, the best first
_BOUNDS = ("action_low", "action_high")
_COLUMNS = ("action", "qpos", "proprio", "ep_len", "ep_randomised")
# Attributes that some files have not: older ones, and of `angles` those that tell no poses.
_LATER = (*_BOUNDS, "step_seconds", "planning", "names", "proprio_names", "angles")
_OWN = ("seed", "data_policy")  # attributes of which each file of a data set may have its own
UNKNOWN = "unknown"  # where a file of others does not say
NO_SIMULATOR = "none"  # instead of one, where a robot moved
_SIMULATED = ("simulator", "action_repeat", "randomise")  # attributes that such data leave to simulated ones
RECORDED = "recorded"  # instead of a policy, where a robot's log was converted
UNUSED = np.float32(1e6)  # the std of an action that never varies
MOST = 1e15  # of what actions and states may be, so that squares are numbers
InMemory = Literal["auto", "yes", "no"]
Compression = Literal["none", "lzf", "gzip"]


@dataclass(frozen=True)
class DatasetInfo:
    """Where the data came from: the file's attributes."""

    task: str
    seed: Natural
    data_policy: str
    simulator: str  # pictures differ between versions of the simulator
    action_block: Natural  # 0: not said
    action_repeat: Count
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, which probes read as cosine and sine
    action_low: tuple[float, ...] = ()  # of one action; older files and others' do not say
    action_high: tuple[float, ...] = ()
    step_seconds: NonNegative = 0.0  # that one action lasts
    randomise: tuple[str, ...] = ()  # what of the scene's looks was drawn at random: camera, light, colour
    planning: str = ""  # how the task is planned, as JSON, where it differs from the agent's defaults
    names: tuple[str, ...] = ()  # of the coordinates of qpos, where they have some
    cameras: tuple[str, ...] = ()  # of several, whose pictures lie side by side in this order; of one there is no word
    proprio_names: tuple[str, ...] = ()  # of the numbers of proprio
    format_version: int = FORMAT_VERSION

    @property
    def is_foreign(self) -> bool:
        """Says whether others wrote the data, and did not say where they came from."""
        return self.simulator == UNKNOWN

    @property
    def picture_columns(self) -> tuple[str, ...]:
        """Returns the names of the columns of pictures."""
        return tuple(f"pixels/{camera}" for camera in self.cameras) or ("pixels",)


@dataclass(frozen=True)
class Episode:
    """One trajectory of T blocks: T + 1 pictures (T+1, H, W, 3), actions (T, A), qpos, qvel and proprio (T+1, ·).

    Actions may be (T + 1, A), the last of which led to no picture.
    """

    pixels: NDArray[np.uint8]
    action: NDArray[np.float32]
    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    randomised: bool = False  # the scene's looks were drawn at random
    diverged: bool = False  # it is cut short, for the simulation blew up
    proprio: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))


def write_dataset(
    path: Path, episodes: Iterable[Episode], info: DatasetInfo, compression: Compression = "none"
) -> None:
    """Writes the episodes to `path`, which appears only once it is whole; pictures may be compressed, each alone."""
    with whole(path) as scratch, writing(scratch, "w") as file:
        file.attrs.update(vars(info))
        _append(file, episodes, info, compression)


def append_episodes(path: Path, episodes: Iterable[Episode], info: DatasetInfo) -> None:
    """Adds the episodes to those at `path`, if there are any, whole or not at all. Raises `DatasetError` where those
    are of another origin.
    """
    if not path.exists():
        write_dataset(path, episodes, info)
        return
    require_same_origin(path, info)
    with whole(path) as scratch:
        shutil.copyfile(path, scratch)
        with writing(scratch, "r+") as file:
            _append(file, episodes, info)


def require_same_origin(path: Path, info: DatasetInfo) -> None:
    """Raises `DatasetError` unless the data set at `path` can be appended to by episodes of this origin."""
    if not path.is_file():
        raise DatasetError(f"{path} is no data set; record into a file of its own")
    try:
        there = _read(path, info.task)[1]
    except DatasetError as error:
        raise DatasetError(f"nothing can be appended to {path}, so record into a file of its own: {error}") from error
    for name in ("action_block", "action_low", "action_high", "angles", "cameras", "proprio_names"):
        if (was := getattr(there, name)) != (now := getattr(info, name)):
            raise DatasetError(f"{path} has another {name} ({was}, and {now} now); record into a file of its own")


def _append(
    file: "h5py.File", episodes: Iterable[Episode], info: DatasetInfo, compression: Compression = "none"
) -> None:
    """Writes episodes behind those that are in the file."""
    counts = {name: list(file[name]) if name in file else [] for name in ("ep_len", "ep_randomised")}
    lengths, randomised = counts["ep_len"], counts["ep_randomised"] or [0] * len(counts["ep_len"])
    for index, episode in enumerate(episodes, start=len(lengths)):
        rows = len(episode.pixels)
        last = np.full((rows - len(episode.action), episode.action.shape[1]), np.nan, np.float32)
        pictures = info.picture_columns
        columns = {
            **dict(zip(pictures, np.split(episode.pixels, len(pictures), axis=2), strict=True)),
            "action": np.concatenate([episode.action, last]),
            "observation": np.concatenate([episode.qpos, episode.qvel], axis=1).astype(np.float32),
            "qpos": episode.qpos,
            "qvel": episode.qvel,
            "proprio": episode.proprio,
            "ep_idx": np.full(rows, index),
            "step_idx": np.arange(rows) * info.action_block,
        }
        reserve(file, sum(values.nbytes for values in columns.values()))
        for name, values in columns.items():
            if not all(values.shape[1:]):  # a robot that tells nothing of the kind
                continue
            if name not in file:
                pack = None if name not in pictures or compression == "none" else compression
                sizes = {"shape": (0, *values.shape[1:]), "maxshape": (None, *values.shape[1:])}
                sizes["chunks"] = (1 if name in pictures else 4096, *values.shape[1:])
                file.create_dataset(name, **sizes, dtype=values.dtype, compression=pack)
            stored = file[name]
            stored.resize(len(stored) + rows, axis=0)
            stored[-rows:] = values
        lengths.append(rows)
        randomised.append(int(episode.randomised))
    reserve(file, 3 * 8 * len(lengths))
    offsets = np.cumsum([0, *lengths[:-1]])
    for name, numbers in (("ep_len", lengths), ("ep_offset", offsets), ("ep_randomised", randomised)):
        if name in file:
            del file[name]
        if name != "ep_randomised" or any(numbers):
            file[name] = np.array(numbers, np.int64)


class Dataset:
    """The episodes of one or several files, with a split of whole ones into training and held-out.

    Pictures are in memory, or stay in the files; all else is in memory, some hundred bytes a row.

    Args:
        path: a file, or several that make one data set.
        task: the one that it must be of.
        held_out_fraction: of each file's episodes, at its end.
        in_memory: whether pictures are; auto: if they take less than half of the memory.
        frameskip: rows in a block; unless given, 1, and 5 for files without attributes, as their authors have it.
        shares: of the windows drawn, one a file; unless given, every window is as likely.
    """

    pixels: NDArray[np.uint8] | Frames  # (N, H, W, 3), of V cameras (N, H, V·W, 3)
    stride: int  # rows from one frame of a window to the next

    def __init__(
        self,
        path: Path | Sequence[Path],
        *,
        task: str | None = None,
        held_out_fraction: float = 0.05,
        in_memory: InMemory = "auto",
        frameskip: int | None = None,
        shares: Sequence[float] = (),
    ):
        """Raises `DatasetError` if a file is missing, damaged, truncated, or of another task."""
        paths = [path] if isinstance(path, str | Path) else list(path)
        parts = [_read(Path(each), task) for each in paths]
        self.info = _same_info([info for _, info in parts], paths)
        if len(widths := {part["action"].shape[1] for part, _ in parts}) > 1:
            raise DatasetError(f"{', '.join(map(str, paths))} have actions of {' and '.join(map(str, widths))} numbers")
        for part, _ in parts:  # of files without them
            for name, width in (("proprio", len(self.info.proprio_names)), ("qpos", len(self.info.angles))):
                if not part[name].shape[1]:
                    part[name] = np.full((len(part["action"]), width), np.nan, part[name].dtype)
        columns = {name: np.concatenate([part[name] for part, _ in parts]) for name in _COLUMNS}
        self.stride = frameskip or (1 if self.info.action_block else FRAMESKIP)
        self.info = replace(self.info, action_block=self.stride * (self.info.action_block or 1))
        self.action: NDArray[np.float32] = _blocks(columns["action"], columns["ep_len"], self.stride)
        self.qpos: NDArray[np.float64] = columns["qpos"]
        self.proprio: NDArray[np.float32] = columns["proprio"]
        self.ep_len: NDArray[np.int64] = columns["ep_len"]
        self.ep_randomised: NDArray[np.int64] = columns["ep_randomised"]
        self.ep_offset: NDArray[np.int64] = np.cumsum(self.ep_len) - self.ep_len
        frames = Frames([Path(each) for each in paths], self.info.picture_columns)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        fits = in_memory == "yes" or (in_memory == "auto" and math.prod(frames.shape) < memory / 2)
        self.pixels = frames[:] if fits else frames
        counts = np.array([len(part["ep_len"]) for part, _ in parts])
        num_held_out = np.minimum(np.maximum(1, np.round(held_out_fraction * counts)), counts - 1).astype(int)
        if not num_held_out.any():
            raise DatasetError(f"{', '.join(map(str, paths))}: {counts.sum()} episode(s); at least 2 are needed")
        self._file = np.repeat(np.arange(len(counts)), counts)  # of each episode
        nth_from_end = np.cumsum(counts)[self._file] - np.arange(len(self._file))
        is_held_out = nth_from_end <= num_held_out[self._file]
        self.train_episodes, self.held_out_episodes = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
        if shares and len(shares) != len(paths):
            raise DatasetError(f"--shares must be {len(paths)} numbers, one a data set, not {len(shares)}")
        self._shares = tuple(shares)

    def fingerprint(self) -> str:
        """Returns what tells these data from others, wherever they lie."""
        digest = hashlib.sha256(self.action.tobytes() + self.ep_len.tobytes()).hexdigest()[:12]
        info = self.info
        told = {
            "looks": info.randomise,
            "cameras": info.cameras,
            "proprio": info.proprio_names,
        }  # which change no action
        more = "".join(f", {name} {','.join(each)}" for name, each in told.items() if each)
        return f"{len(self.ep_len)} episodes of {info.data_policy!r}, seed {info.seed}, actions {digest}{more}"

    def action_stats(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns mean and std (A,) of the training actions.

        A dimension that never varies gets a std of `UNUSED`, in units of which whatever is done there is nothing.
        """
        rows = self.action[self.rows_of(self.train_episodes)]
        rows = rows[~np.isnan(rows).any(axis=1)]
        if not len(rows):
            raise DatasetError("no training episode is as long as a block; take a smaller --frameskip or more data")
        std, idle = rows.std(0), is_unused(rows)
        if idle.any():
            single = max(1, len(idle) // max(1, self.info.action_block))
            which = sorted({int(index) % single for index in np.flatnonzero(idle)})
            log.warning("action %s never varies in these data: it is treated as unused", ", ".join(map(str, which)))
        return rows.mean(0), np.where(idle, UNUSED, std + np.float32(1e-6))

    def picture_stats(self, num_pictures: int = 1000) -> PictureStats:
        """Measures so many training pictures, in the scene's own looks."""
        pictures = self.pixels[spread(self.rows_of(self.in_own_looks(self.train_episodes)), num_pictures)]
        mean, std = pictures.mean(0, dtype=np.float32), pictures.std(0, dtype=np.float32)
        return PictureStats(mean.round().astype(np.uint8), std.round().astype(np.uint8))

    def sample_rows(self, batch_size: int, num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draws rows (B, T) of windows of T frames from the training episodes: uniformly from all windows, or from each
        file's as often as its share says.
        """
        num_starts = np.maximum(self.ep_len[self.train_episodes] - (num_frames - 1) * self.stride, 0)
        ends = np.cumsum(num_starts)  # uniform over windows, whatever the episodes' lengths
        if ends[-1] == 0:
            raise DatasetError(f"no training episode has the {num_frames} frames that a window needs")
        if self._shares:
            of_file = np.bincount(self._file[self.train_episodes], num_starts, len(self._shares)).astype(int)
            shares = np.where(of_file, self._shares, 0)
            if not shares.any():
                raise DatasetError(
                    f"no training episode of a file with a share has the {num_frames} frames of a window"
                )
            file = rng.choice(len(shares), batch_size, p=shares / shares.sum())
            draw = (np.cumsum(of_file) - of_file)[file] + rng.integers(of_file[file])
        else:
            draw = rng.integers(ends[-1], size=batch_size)
        episode = np.searchsorted(ends, draw, side="right")
        start = self.ep_offset[self.train_episodes][episode] + draw - (ends - num_starts)[episode]
        return start[:, None] + self.stride * np.arange(num_frames)

    def windows(self, rows: NDArray[np.int64]) -> tuple[Observation, torch.Tensor]:
        """Returns what was seen and felt at rows (B, T), and the actions between them (B, T-1, A) float32."""
        return self.observations(rows), torch.from_numpy(self.action[rows[:, :-1]])

    def observations(self, rows: NDArray[np.int64]) -> Observation:
        """Returns what was seen and felt at rows (...)."""
        felt = torch.from_numpy(self.proprio[rows]) if self.proprio.shape[1] else None
        return Observation(torch.from_numpy(self.pixels[rows]), felt)

    @property
    def num_views(self) -> int:
        """Counts the cameras, whose pictures lie side by side."""
        return max(1, len(self.info.cameras))

    def proprio_stats(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns mean and std (P,) of what was felt in the training episodes, where that is known. A number that never
        varies, or never is known, gets a std of `UNUSED`.
        """
        felt = np.ma.masked_invalid(self.proprio[self.rows_of(self.train_episodes)].astype(np.float64))
        mean, std = (np.ma.filled(each, 0.0).astype(np.float32) for each in (felt.mean(0), felt.std(0)))
        idle = std <= 1e-5 * np.ma.filled(np.abs(felt).max(0), 0.0)
        return mean, np.where(idle, UNUSED, std + np.float32(1e-6))

    def sample_future(
        self, rows: NDArray[np.int64], rng: np.random.Generator, least: int = 0, most: int | None = None
    ) -> NDArray[np.int64]:
        """Draws for each row (B,) one `least` to `most` blocks later in the same episode, uniformly."""
        left = self.blocks_left(rows)
        return rows + self.stride * rng.integers(least, (left if most is None else np.minimum(most, left)) + 1)

    def blocks_left(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts for each row (B,) the whole blocks that follow in its episode."""
        last = (self.ep_offset + self.ep_len - 1)[np.searchsorted(self.ep_offset, rows, side="right") - 1]
        return (last - rows) // self.stride

    def in_own_looks(self, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns those of the episodes whose looks were not drawn at random; all if all were."""
        own = episodes[self.ep_randomised[episodes] == 0]
        return own if len(own) else episodes

    def rows_of(self, episodes: Iterable[int]) -> NDArray[np.int64]:
        """Returns the rows (N,) of whole episodes."""
        return np.concatenate([self.ep_offset[episode] + np.arange(self.ep_len[episode]) for episode in episodes])

    def probe_targets(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[str]]:
        """Returns state to read off the embeddings (N, P), angles as cosine and sine, and its P names."""
        targets: dict[str, NDArray] = {}
        for coordinate, is_angle in enumerate(self.info.angles):
            value, name = self.qpos[rows, coordinate], f"qpos{coordinate}"
            targets |= {f"cos_{name}": np.cos(value), f"sin_{name}": np.sin(value)} if is_angle else {name: value}
        return np.stack([*targets.values()], axis=1) if targets else np.empty((len(rows), 0)), [*targets]


def _blocks(action: NDArray[np.float32], ep_len: NDArray[np.int64], stride: int) -> NDArray[np.float32]:
    """Returns actions (N, A · stride) of the block that begins at each row, NaN where the episode ends before it."""
    if stride == 1:
        return action
    N, A = action.shape
    blocks = np.full((N, stride * A), np.nan, np.float32)
    if stride <= N:
        windows = np.lib.stride_tricks.sliding_window_view(action, stride, axis=0)  # (N - stride + 1, A, stride)
        blocks[: len(windows)] = windows.transpose(0, 2, 1).reshape(len(windows), -1)
    left = np.repeat(np.cumsum(ep_len), ep_len) - np.arange(N)  # rows from here to the episode's end
    blocks[left <= stride] = np.nan
    return blocks


def spread(values: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Returns so many of the values (N, ...), evenly from the first to the last; all if they are fewer."""
    return values[np.linspace(0, len(values) - 1, min(num, len(values))).astype(int)]


def is_unused(actions: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Returns which dimensions (A,) of actions (N, A) never vary, but for rounding."""
    return actions.std(0) <= 1e-5 * np.abs(actions).max(0)


def _same_info(infos: Sequence[DatasetInfo], paths: Sequence[Path]) -> DatasetInfo:
    """Returns what the files say of themselves, all their policies, and the first one's seed for all; older ones leave
    some of it to others, and those of a robot what is of a simulator.
    """
    first = next((number for number, info in enumerate(infos) if info.simulator != NO_SIMULATOR), 0)
    told, rest = infos[first], [(path, info) for path, info in zip(paths, infos, strict=True) if info != infos[first]]
    for path, info in rest:
        free = _SIMULATED if info.simulator == NO_SIMULATOR != told.simulator and not info.angles else ()
        pairs = {name: (value, getattr(info, name)) for name, value in vars(told).items() if name not in (*_OWN, *free)}
        if differing := [name for name, (a, b) in pairs.items() if a != b and (name not in _LATER or (a and b))]:
            raise DatasetError(f"{path} differs from {paths[first]} in {', '.join(differing)}; train on each by itself")
        told = replace(told, **{name: a or b for name, (a, b) in pairs.items() if name in _LATER})
    policies = dict.fromkeys(info.data_policy for info in infos)
    return replace(told, seed=infos[0].seed, data_policy=" and ".join(policies))


def _read(path: Path, task: str | None) -> tuple[dict[str, NDArray], DatasetInfo]:
    """Returns all columns but the pictures, and where the data came from."""
    fix = f"collect it again with `jepa-mpc collect --task {shlex.quote(task or 'TASK')}`"
    with guarded(path, fix), open_file(path, fix.replace("it again", "one")) as file:
        info = read_info(file, fix)
        columns = _columns(file, state_column(file) if info is None or info.angles else None, info)
    if info is None:
        return columns, recorded_info(columns["qpos"].shape[1], task=task or UNKNOWN, action_block=0)
    if task is not None and not same(info.task, task):
        raise DatasetError(f"{path} was collected on task {info.task!r}, not {task!r}; pass another --data")
    width, Q = columns["action"].shape[1], columns["qpos"].shape[1]
    block, size = info.action_block, len(info.action_low)
    if size != len(info.action_high) or (size and width != block * size):
        raise DatasetError(f"{path}: column 'action' must be {block} actions of {size} numbers, not {width} in all")
    if any(low > high for low, high in zip(info.action_low, info.action_high, strict=True)):
        raise DatasetError(f"{path}: attribute 'action_low' must not lie above 'action_high'; write it again")
    if columns["proprio"].shape[1] not in (0, len(info.proprio_names)):
        raise DatasetError(f"{path}: column 'proprio' must be {len(info.proprio_names)} numbers; write it again")
    if info.names and not len(set(info.names)) == len(info.names) == Q:
        raise DatasetError(f"{path}: attribute 'names' must be {Q} different ones, as `angles`; write it again")
    if len(info.angles) != Q:
        raise DatasetError(f"{path}: column 'qpos' must be of {len(info.angles)} coordinates, as `angles`, not {Q}")
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads(info.planning or "{}"), dict):
            return columns, info
    raise DatasetError(f"{path}: attribute 'planning' must be JSON of an object; write it again")


def recorded_info(
    num_states: int, step_seconds: float = 0.0, task: str = UNKNOWN, action_block: int = 1
) -> DatasetInfo:
    """Returns what is known of data that others recorded, with a row a step; with block 0 that is not said."""
    return DatasetInfo(task, 0, UNKNOWN, UNKNOWN, action_block, 1, (False,) * num_states, step_seconds=step_seconds)


def read_info(file: "h5py.File", fix: str) -> DatasetInfo | None:
    """Returns a file's attributes; None if it is of le-wm or stable-worldmodel, which say nothing of themselves."""
    attributes = {name: getattr(value, "tolist", lambda v=value: v)() for name, value in file.attrs.items()}
    if "format_version" not in attributes:
        return None
    if (version := attributes["format_version"]) != FORMAT_VERSION:
        raise DatasetError(f"{file.filename} has data format {version}, this version reads {FORMAT_VERSION}; {fix}")
    fields = {field.name for field in dataclasses.fields(DatasetInfo)}
    if any(abs(bound) == math.inf for name in _BOUNDS for bound in attributes.get(name, ())):
        fields -= {*_BOUNDS}  # which say nothing
    return read(DatasetInfo, {name: value for name, value in attributes.items() if name in fields}, file.filename)


def state_column(file: "h5py.File") -> str | None:
    """Returns the name of the column that tells most of the state; None if there is none."""
    return next((name for name in STATES if file.id.links.exists(name.encode())), None)


def episode_lengths(file: "h5py.File", pictures: Sequence[str] = ("pixels",)) -> NDArray[np.int64]:
    """Returns the rows (E,) of each episode. Raises `DatasetError` where they do not add up to the pictures, which
    stand in columns of these names.
    """
    ep_len = column(file, "ep_len", "E", "integer")[:].astype(np.int64)
    ep_offset = column(file, "ep_offset", "E", "integer", {"E": len(ep_len)})[:]
    ends = np.cumsum(ep_len)
    for name in pictures:
        rows = len(column(file, name, "NHW3", "uint8"))
        if not (ep_len.min() > 0 and ep_len.max() <= rows == ends[-1] and (ep_offset == ends - ep_len).all()):
            raise DatasetError(
                f"{file.filename} is truncated, or its episodes do not lie one after another: column 'ep_len' names "
                f"{sum(map(int, ep_len))} rows, {name!r} has {rows}; write it again"
            )
    return ep_len


def randomised_episodes(file: "h5py.File", num_episodes: int) -> NDArray[np.int64]:
    """Returns 1 for each episode (E,) whose looks were drawn at random, and 0 for the others."""
    if not file.id.links.exists(b"ep_randomised"):
        return np.zeros(num_episodes, np.int64)
    return column(file, "ep_randomised", "E", "integer", {"E": num_episodes})[:].astype(np.int64)


def _columns(file: "h5py.File", state: str | None, info: DatasetInfo | None) -> dict[str, NDArray]:
    """Returns actions, lengths, state (called qpos) and, where the file says what it is, proprio; every row adds up and
    every number is one.
    """
    path, ep_len = file.filename, episode_lengths(file, info.picture_columns if info else ("pixels",))
    rows, ends = int(ep_len.sum()), np.cumsum(ep_len)
    sizes = {"N": rows}
    with np.errstate(over="ignore", invalid="ignore"):
        action = column(file, "action", "NA", "float", sizes)[:].astype(np.float32)
        qpos = column(file, state, "NQ", "float", sizes)[:].astype(np.float64) if state else np.empty((rows, 0))
        felt = info is not None and info.proprio_names
        proprio = column(file, "proprio", "NP", "float", sizes)[:].astype(np.float32) if felt else np.empty((rows, 0))
        fits = np.abs(action) < MOST
    fits[ends - 1] |= np.isnan(action[ends - 1])  # nothing need be done there
    known = np.isnan(proprio) | (np.abs(proprio) < MOST)
    for name, good, values in (
        ("action", fits, action),
        (state, np.abs(qpos) < MOST, qpos),
        ("proprio", known, proprio),
    ):
        if not good.all():
            row, number = np.argwhere(~good)[0]
            where = (
                f"in row {row} (episode {np.searchsorted(ends, row, 'right')}) entry {number} is {values[row, number]}"
            )
            raise DatasetError(f"{path}: column {name!r} must be numbers; {where}; write it again without that")
    randomised = randomised_episodes(file, len(ep_len))
    numbers = {"action": action, "qpos": qpos, "proprio": proprio.astype(np.float32)}
    return {**numbers, "ep_len": ep_len, "ep_randomised": randomised}
