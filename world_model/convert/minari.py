"""A data set of ours as one of Minari's: `jepa-mpc convert minari --task reacher`.

Minari is Gymnasium's format for recorded episodes; its own library does the writing, episode by episode, so a data set
need not fit in memory. Afterwards `minari.load_dataset` finds it by its name. What goes along is what was recorded, row
by row: the picture at the start of every block, the pose, and the block's actions side by side. Rewards are zero: there
were none. Files of le-wm and stable-worldmodel have a row for every step, and so has their export.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("convert minari")

import contextlib
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc import places
from jepa_mpc.cli import parse
from jepa_mpc.provenance import git_commit
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError


@dataclass(frozen=True)
class ExportConfig:
    """Write a data set under a name of Minari's, into its own folder of data sets."""

    task: str = "reacher"
    """Task that the data set must be of."""
    data: tuple[Path, ...] = ()
    """HDF5 files, which make one data set; `data/TASK.h5` under the home unless given."""
    dataset_id: str | None = None
    """Name to load it by; `jepa-mpc/<task>/<policy>-v0` unless given."""


def episodes(data: Dataset) -> Any:
    """Yields Minari's own episodes."""
    from minari.data_collector import EpisodeBuffer
    from tqdm import tqdm

    for index in tqdm(range(len(data.ep_len)), desc="exporting", unit="episode"):
        rows = data.rows_of([index])
        actions = data.action[rows[:-1]]  # nothing was done from the last picture
        yield EpisodeBuffer(
            id=index,
            observations={"pixels": data.pixels[rows], "qpos": data.qpos[rows]},
            actions=actions,
            rewards=[0.0] * len(actions),
            terminations=[False] * len(actions),
            truncations=[step == len(actions) - 1 for step in range(len(actions))],
        )


def export(config: ExportConfig) -> str:
    """Writes the data set and returns its name."""
    try:
        import minari
    except ImportError as error:
        raise DatasetError("minari is missing; from Python 3.11 on, `pip install 'jepa-mpc[minari]'`") from error
    from gymnasium.spaces import Box, Dict
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    paths = config.data or (places.dataset(config.task),)
    data = Dataset(paths, task=config.task, in_memory="no", frameskip=1)  # its rows, and no view of them
    info = data.info
    name = config.dataset_id or f"jepa-mpc/{places.slug(config.task)}/{places.slug(info.data_policy)}-v0"
    try:
        parse_dataset_id(name)
    except ValueError as error:
        raise DatasetError(f"--dataset-id must be of the form namespace/name-v0, not {name!r}") from error
    if (folder := Path(get_dataset_path(name))).exists():
        raise DatasetError(f"Minari has a data set {name} already; choose another --dataset-id")
    pictures, actions, pose = data.pixels.shape[1:], data.action.shape[1:], data.qpos.shape[1:]
    observation = Dict(pixels=Box(0, 255, pictures, np.uint8), qpos=Box(-np.inf, np.inf, pose, np.float64))
    description = (
        f"Reward-free episodes of {info.task}, policy {info.data_policy!r}, seed {info.seed}, {info.simulator}. "
        f"A step is a block of {info.action_block} actions of the environment, side by side, each repeated for "
        f"{info.action_repeat} control steps; the picture is of the block's start."
    )
    with contextlib.ExitStack() as failure, warnings.catch_warnings():
        failure.callback(shutil.rmtree, folder, ignore_errors=True)
        warnings.filterwarnings("ignore", message=".*(env_spec|eval_env|author|code_permalink|algorithm_name).*")
        minari.create_dataset_from_buffers(
            dataset_id=name,
            buffer=episodes(data),  # any iterable will do, and one that is not a list takes no memory
            observation_space=observation,
            action_space=Box(-np.inf, np.inf, actions, np.float32),
            algorithm_name=info.data_policy,
            author="jepa-mpc",
            description=description + f" Commit {git_commit()}.",
            data_format="hdf5",
            jpeg_encoding=False,
        )
        failure.pop_all()
    return name


def main(args: Sequence[str]) -> None:
    name = export(parse(ExportConfig, args))
    print(f"wrote {name}, under {os.environ.get('MINARI_DATASETS_PATH', '~/.minari/datasets')}")  # noqa: T201
