"""Where things lie: bundled checkpoints beside the code, what commands make under one home.

The home is `$JEPA_MPC_HOME`, which every command's `--home` sets; else the checkout, where one may
write to it; else the user's folder for data. Nothing depends on the folder that one stands in.
"""

import contextlib
import itertools
import os
from datetime import datetime
from pathlib import Path

from jepa_mpc.errors import UserError
from jepa_mpc.registry import is_model_file

HOME_VARIABLE = "JEPA_MPC_HOME"
_PACKAGE = Path(__file__).resolve().parent
SOURCE = _PACKAGE.parent  # what `import jepa_mpc` looks into: the checkout, or site-packages


def expanded(path: Path | str) -> Path:
    """Returns the path with `~` as the home of a user; raises `UserError` if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} begins with the name of no user here; give a path, or ~/ for your own home") from error


def checkout() -> Path | None:
    """Returns the checkout's root, or None if this is an installed wheel."""
    return SOURCE if (SOURCE / "pyproject.toml").is_file() else None


def home() -> Path:
    """Returns the folder under which data, runs and caches lie."""
    if given := os.environ.get(HOME_VARIABLE):
        return expanded(given)
    root = checkout()
    if root is not None and os.access(root, os.W_OK):
        return root
    from platformdirs import user_data_path

    return user_data_path("jepa-mpc", appauthor=False)


def dataset(task: str) -> Path:
    """Returns where a task's data set lies unless another place is named."""
    return home() / "data" / f"{_folders(task)}.h5"


def goal_pairs() -> Path:
    """Returns the folder of stored start and goal pairs."""
    return home() / "data" / "goal_tasks"


def runs(*parts: str) -> Path:
    """Returns a place under the folder of runs."""
    return home().joinpath("runs", *map(_folders, parts))


def new_run(name: str) -> Path:
    """Makes a folder of this moment and that name under the folder of runs, which no other run has."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (folder := runs(name if number == 1 else f"{name}-{number}")).mkdir(parents=True)
            return folder
    raise AssertionError


def bundled_checkpoints() -> Path:
    """Returns the folder of the checkpoints that come with the code."""
    root = checkout()
    return (_PACKAGE if root is None else root) / "checkpoints"


def bundled_tasks() -> list[str]:
    """Returns the tasks that have a bundled checkpoint."""
    folder = bundled_checkpoints()
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("config.json"))


def checkpoint(name: Path | str) -> Path:
    """Returns a checkpoint's folder: a path, or the name of a task whose checkpoint is bundled.

    Raises `UserError` if there is neither.
    """
    path = expanded(name)
    bundled = bundled_checkpoints() / _folders(str(name))
    if (path / "config.json").is_file() or not (bundled / "config.json").is_file():
        if path.is_dir():
            return path
        more = "" if checkout() else "; a checkout has more, as folders: --checkpoint CHECKOUT/checkpoints/TASK"
        raise UserError(
            f"no checkpoint at {path}; train one with `jepa-mpc train`, and name it by --checkpoint, or a bundled one: "
            f"{', '.join(bundled_tasks()) or 'there are none'}{more}"
        )
    return bundled


def slug(task: str) -> str:
    """Returns a task's name as part of a file name."""
    return _folders(task).replace("/", "-").replace(":", "-")


def _folders(name: str) -> str:
    """Returns a task's name as folders; of a model's file what it is called, wherever it lies."""
    return os.path.basename(name) if is_model_file(name) else name.replace(":", "/")
