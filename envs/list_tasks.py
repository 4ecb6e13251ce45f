"""Lists the tasks there are: `python envs/list_tasks.py`."""

from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import tyro
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.envs.registry import TASKS


@dataclass(frozen=True)
class ListConfig:
    """List the tasks with settings of their own, and every other that goes by its suite's name."""

    match: str = ""
    """Only those whose name contains this."""
    pictures: Path | None = None
    """Folder to write a picture of each task into, as the agent sees it."""


def main() -> None:
    config = tyro.cli(ListConfig)
    name_column = Column("task", no_wrap=True, min_width=30)
    table = Table(
        name_column, "actions × block", "coordinates", "picture", "step, ms", "data policy", "checkpoint", box=None
    )
    names = [name for name in TASKS if config.match in name]
    for name in tqdm(names, leave=False):
        spec = envs.get_task(name)
        env = envs.make(name)
        picture, _ = env.reset(seed=0)
        if config.pictures is not None:
            path = config.pictures / f"{name.replace('/', '-')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, picture)
        bundled = (Path("checkpoints") / name / "config.json").is_file()
        table.add_row(
            name,
            f"{np.prod(env.action_space.shape):.0f} × {spec.action_block}",
            str(len(env.qpos)),
            "×".join(map(str, picture.shape[:2])),
            f"{1000 * env.step_seconds:.0f}",
            spec.data_policy,
            "bundled" if bundled else "–",
        )
        env.close()
    console = Console()
    console.width = max(console.width, 100)
    console.print(table)


if __name__ == "__main__":
    main()
