"""One store of what is measured: a row of a table is a JSON file that says what was asked, and what came of it."""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jepa_mpc import files, places, settings
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.errors import UserError
from jepa_mpc.settings import Count, Seed
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_info, weights_digest
from jepa_mpc.world_model.latent_policy.stored import policy_digest

log = logging.getLogger(__name__)
R = TypeVar("R")

# What a row rests on: where only these have changed, it is out of date, and measured again in its place.
_FOUNDATIONS = ("checkpoint", "weights", "policy", "world_model", "planner")


@dataclass(frozen=True)
class TableConfig:
    """What every table of rows has to be told."""

    num_episodes: Count = 200
    """Pairs in a row."""
    seed: Seed = 0
    """Decides the pairs and the search."""
    output: Path | None = None
    """Folder for rows, table and pictures; one of this size and seed under `runs/tables` unless given."""
    publish: bool = False
    """Write into docs/results instead, and tasks' figures under the checkpoints' cards."""


@dataclass(frozen=True)
class CheckpointTableConfig(TableConfig):
    """What a table of one checkpoint's rows has to be told besides."""

    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder; the task's bundled one unless given."""

    @property
    def folder(self) -> Path:
        """Returns the checkpoint's folder."""
        return places.checkpoint(str(self.checkpoint or self.task))

    @property
    def declared(self) -> str:
        """Returns a sentence on what the model is told beside one camera's pictures; nothing where that is all."""
        return declaration(load_info(self.folder))

    def name(self, kind: str, *parts: str) -> str:
        """Returns the name of a table of that kind: the task, what sets it apart, and a checkpoint of one's own."""
        own = [] if self.checkpoint is None else [places.slug(self.folder.resolve().name)]
        return f"{kind}/{'-'.join([places.slug(self.task), *parts, *own])}"


def declaration(info: CheckpointInfo) -> str:
    """Returns the sentence that a page says of a model which is told more than one camera's pictures; else nothing."""
    return f" The model is told more than one camera's pictures: {info.declared}." if info.declared else ""


def digests(checkpoint: Path, planning: AgentConfig) -> dict[str, str]:
    """Returns the digests of all weights that a figure of a checkpoint depends on, its policy's too if it has one."""
    found = {"weights": weights_digest(checkpoint)}
    if planning.warm_start != "none":
        found["policy"] = policy_digest(checkpoint / f"{planning.warm_start}.safetensors", checkpoint)
    return found


@dataclass(frozen=True)
class Book(Generic[R]):
    """Rows that are measured once.

    Attributes:
        kind: the dataclass that a row is.
        folder: where rows are written.
        others: folders whose rows count too, and are copied where they are of use.
    """

    kind: type[R]
    folder: Path
    others: Sequence[Path] = ()

    @classmethod
    def open(cls, kind: type[R], name: str, config: "TableConfig") -> "Book[R]":
        """Returns a table's book: a trial's, or of docs/results if it is to be published. Rows of the other count.

        Raises `UserError` where nothing can be published.
        """
        trial = config.output or places.runs("tables", f"{name}-{config.num_episodes}-seed{config.seed}")
        files.require_folder(trial, f"--output {trial}")
        if not config.publish:
            return cls(kind, trial, [] if places.checkout() is None else [published(name)])
        if config.output is not None:
            raise UserError("--publish writes into docs/results; leave --output out")
        return cls(kind, published(name), [trial])

    def find(self, name: str, asked: Mapping[str, Any]) -> R | None:
        """Returns the row of that name if it was measured as it is asked for.

        Raises `UserError`, which names the file, if the folder has something else under that name.
        """
        wanted = json.loads(json.dumps(settings.to_json(asked)))
        for folder in (self.folder, *self.others):
            path = folder / f"{name}.json"
            if path.is_dir():
                raise UserError(f"{path} is a folder where a row belongs; move it away or choose another --output")
            if (stored := _load(path)) is None:
                continue
            was = _filled(stored.pop("asked", None)) if isinstance(stored, dict) else None
            if was == wanted:
                try:
                    row = settings.read(self.kind, stored, path)
                except UserError as error:
                    log.warning("%s; the row is measured again", error)
                    continue
                if folder != self.folder:
                    self._write(name, asked, row)
                return row
            if folder == self.folder:
                _refuse_foreign(path, was, wanted)
        return None

    def once(self, name: str, asked: Mapping[str, Any], measure: Callable[[], R]) -> R:
        """Returns the row of that name, which is measured and stored if it is not there."""
        row = self.find(name, asked)
        if row is None:
            row = measure()
            self._write(name, asked, row)
        return row

    def _write(self, name: str, asked: Mapping[str, Any], row: R) -> None:
        files.write_json(self.folder / f"{name}.json", {"asked": settings.to_json(asked), **settings.to_json(row)})


def _filled(asked: Any) -> Any:
    """Returns what was asked with the planner's settings that are younger than the row, each at its default: a new one
    changes nothing unless it is set.
    """
    if isinstance(asked, dict) and isinstance(planner := asked.get("planner"), dict):
        with contextlib.suppress(UserError):
            return asked | {"planner": settings.to_json(settings.read(AgentConfig, planner, "a row"))}
    return asked


def published(name: str) -> Path:
    """Returns the folder of a table in docs/results. Raises `UserError` where this is no checkout."""
    if (root := places.checkout()) is None:
        raise UserError("--publish writes into docs/results of a checkout, and this is none")
    return root / "docs/results" / name


def _load(path: Path) -> Any:
    """Returns what a file holds; None if it is missing or damaged."""
    try:
        return files.read_json(path, "the row is measured again") if path.exists() else None
    except UserError as error:
        log.warning("%s", error)
        return None


def _refuse_foreign(path: Path, was: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(was, dict):
        raise UserError(f"{path} is no row of this table; move it away or choose another --output")
    differing = [name for name in {**wanted, **was} if was.get(name) != wanted.get(name)]
    for name in differing:
        if name not in _FOUNDATIONS:
            raise UserError(
                f"{path} is a row of another table: {name} is {was.get(name)} there and {wanted.get(name)} now; "
                "choose another --output"
            )
    log.info("%s is of another %s; it is measured again", path, differing[0])
