"""Every task under one name. Tasks with settings of their own stand in the table of `envs/tasks.py`; any other MuJoCo
task of the control suite or of Gymnasium goes by `dmc/<domain>-<task>` or `gym/<Id>` (`envs/generic.py`).
"""

import difflib
import importlib.metadata

from jepa_mpc.envs.base import EnvError, PixelEnv
from jepa_mpc.envs.task import TaskSpec
from jepa_mpc.envs.tasks import TASKS


def task_names() -> list[str]:
    """The tasks that have settings of their own."""
    return sorted(TASKS)


def get_task(name: str) -> TaskSpec:
    """The task of that name. Raises `EnvError`, which suggests the nearest names, if there is none."""
    if name in TASKS:
        return TASKS[name]
    from jepa_mpc.envs import generic

    if generic.exists(name):
        return generic.spec(name)
    known = sorted({*task_names(), *generic.names()})
    near = difflib.get_close_matches(name, known, n=3) or [known_name for known_name in known if name in known_name][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`python envs/list_tasks.py` lists them"
    raise EnvError(f"unknown task {name!r}; {hint}")


def make(name: str, image_size: int | None = None, fast_rendering: bool = True) -> PixelEnv:
    """A new environment of the task, with pictures of its own size unless another is asked for."""
    spec = get_task(name)
    return spec.make(image_size or spec.image_size, fast_rendering)


def simulator_version() -> str:
    """The version that decides what pictures look like, recorded in data sets and checkpoints."""
    return f"mujoco {importlib.metadata.version('mujoco')}"
