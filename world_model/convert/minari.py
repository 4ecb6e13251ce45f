"""A data set of ours as one of Minari's: `python world_model/convert/minari.py --task reacher`.

Minari is Gymnasium's format for recorded episodes; its own library does the writing, episode by episode, so a data set
need not fit in memory. Afterwards `minari.load_dataset` finds it by its name. What goes along is what was recorded: the
picture at the start of every block, the pose, and the block's actions side by side. Rewards are zero: there were none.
"""

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from gymnasium.spaces import Box, Dict
from tqdm import tqdm

from jepa_mpc.world_model.checkpoint import git_commit
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError


@dataclass(frozen=True)
class ExportConfig:
    """Write a data set under a name of Minari's, into its own folder of data sets."""

    task: str = "reacher"
    """Task that the data set must be of."""
    data: tuple[Path, ...] = ()
    """HDF5 files, which make one data set; `data/<task>.h5` unless given."""
    dataset_id: str | None = None
    """Name to load it by; `jepa-mpc/<task>/<policy>-v0` unless given."""


def episodes(data: Dataset) -> Any:
    """An iterator over Minari's own episodes."""
    from minari.data_collector import EpisodeBuffer

    for index in tqdm(range(len(data.ep_len)), desc="exporting", unit="episode"):
        rows = slice(data.ep_offset[index], data.ep_offset[index] + data.ep_len[index])
        actions = data.action[rows][:-1]  # nothing was done from the last picture
        ends = np.arange(len(actions)) == len(actions) - 1
        yield EpisodeBuffer(
            id=index,
            observations={"pixels": data.pixels[rows], "qpos": data.qpos[rows]},
            actions=actions,
            rewards=[0.0] * len(actions),
            terminations=[False] * len(actions),
            truncations=ends.tolist(),
        )


def export(config: ExportConfig) -> str:
    """Writes the data set and returns its name."""
    try:
        import minari
    except ImportError as error:
        raise DatasetError(f"Minari is missing; install it with `pip install -e '.[minari]'` ({error})") from error
    paths = config.data or (Path("data") / f"{config.task}.h5",)
    data = Dataset(paths, task=config.task, in_memory="no")
    info = data.info
    name = config.dataset_id or f"jepa-mpc/{config.task.replace('/', '-')}/{info.data_policy}-v0"
    if name in minari.list_local_datasets():
        raise DatasetError(f"Minari has a data set {name} already; choose another --dataset-id")
    pictures, actions, pose = data.pixels.shape[1:], data.action.shape[1:], data.qpos.shape[1:]
    observation = Dict(pixels=Box(0, 255, pictures, np.uint8), qpos=Box(-np.inf, np.inf, pose, np.float64))
    description = (
        f"Reward-free episodes of {info.task}, policy {info.data_policy!r}, seed {info.seed}, {info.simulator}. "
        f"A step is a block of {info.action_block} actions of the environment, side by side, each repeated for "
        f"{info.action_repeat} control steps; the picture is of the block's start."
    )
    with warnings.catch_warnings():
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
    return name


def main() -> None:
    config = tyro.cli(ExportConfig)
    try:
        name = export(config)
    except (DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; delete what Minari has of it and begin again")
    print(f"wrote {name}, under {os.environ.get('MINARI_DATASETS_PATH', '~/.minari/datasets')}")  # noqa: T201


if __name__ == "__main__":
    main()
