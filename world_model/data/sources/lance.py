"""stable-worldmodel's Lance tables: a row a step, pictures as JPEG, episodes one after another.

Lance's own library reads them. The columns are `episode_idx`, `step_idx`, one of bytes a camera, and lists of numbers.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import reason
from jepa_mpc.world_model.data.dataset import STATES, recorded_info
from jepa_mpc.world_model.data.extras import needed
from jepa_mpc.world_model.data.hdf5 import PACKED, DatasetError, guarded
from jepa_mpc.world_model.data.pictures import decode
from jepa_mpc.world_model.data.sources.base import Numbers, Source, numbered, source
from jepa_mpc.world_model.data.tables import numbers

_EPISODE, _ACTION = "episode_idx", "action"
_BESIDE = ("_episodes.lance", "_videos.lance")  # tables that go with another


@source("lance")
class Lance(Source):
    """One table's folder, or the folder that holds it."""

    looks = "a folder .lance of stable-worldmodel, or one that holds it"

    def __init__(self, path: Path):
        super().__init__(path)
        lance = needed("lance", "lance", "to read Lance")
        if path.suffix != ".lance":
            tables = _tables(path)
            if len(tables) > 1:
                raise DatasetError(f"{path} holds {', '.join(each.name for each in tables)}; name one of them")
            path = tables[0]
        self._path = path
        with _guarded(path):
            self._table = lance.dataset(str(path))
            self._refuse_elsewhere()
            schema = self._table.schema
        if missing := [name for name in (_EPISODE, _ACTION) if name not in schema.names]:
            raise DatasetError(f"{path} has no column {missing[0]!r}; it has {', '.join(schema.names)}")
        self.cameras = tuple(each.name for each in schema if str(each.type) in ("binary", "large_binary"))
        if not self.cameras:
            raise DatasetError(
                f"{path} has no column of pictures, of type binary; convert it to stable-worldmodel's 'lance'"
            )
        episode = self._numbers([_EPISODE], 0, self._table.count_rows())[_EPISODE][:, 0]
        begins = np.flatnonzero(np.diff(episode, prepend=np.nan))
        if not len(begins) or len(np.unique(episode[begins])) != len(begins):
            raise DatasetError(f"{path} has no episodes, or such as do not lie one after another; write it again")
        self._begin, self.lengths = begins, np.diff(begins, append=len(episode))
        self._state = next((name for name in STATES if name in schema.names), None)
        self._feels = "proprio" in schema.names
        width = self.numbers(0).state.shape[1]
        if (felt := self.numbers(0).proprio) is not None:
            self.proprio_names = numbered((), felt.shape[1])
        self.info = recorded_info(width, action_block=0)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and (path.suffix == ".lance" or bool(_tables(path)))

    def read(self, episode: int) -> Numbers:
        names = [_ACTION, *filter(None, [self._state]), *["proprio"] * self._feels]
        found = self._numbers([*dict.fromkeys(names)], self._begin[episode], self.lengths[episode])
        state = found.get(self._state or "", np.empty((len(found[_ACTION]), 0)))
        return Numbers(found[_ACTION], state, None, found.get("proprio"))

    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        begin, rows = int(self._begin[episode]), int(self.lengths[episode])
        with _guarded(self._path):
            batches = self._table.to_batches(columns=[camera], offset=begin, limit=rows, batch_size=32)
            for batch in batches:
                for content in batch.column(0):
                    where = f"{self._path}: column {camera!r}, row {begin}"
                    yield decode(content.as_py() or b"", where)
                    begin += 1

    def _numbers(self, names: Sequence[str], begin: int, rows: int) -> dict[str, NDArray[np.float64]]:
        with _guarded(self._path):
            table = self._table.to_table(columns=list(names), offset=int(begin), limit=int(rows))
            return {name: numbers(table[name], f"{self._path}: column {name!r}") for name in names}

    def _refuse_elsewhere(self) -> None:
        """Raises `DatasetError` if the table's files lie outside of its folder, or hold less than it declares."""
        for fragment in self._table.get_fragments():
            for file in fragment.metadata.files:
                place = PurePosixPath(file.path)
                if getattr(file, "base_id", None) is not None or place.is_absolute() or ".." in place.parts:
                    raise DatasetError(f"{self._path} leads out of its folder, to {place}; copy it whole")
        size = sum(file.stat().st_size for file in self._path.rglob("*") if file.is_file())
        if 4 * self._table.count_rows() > PACKED * (size + 4096):
            raise DatasetError(
                f"{self._path} declares {self._table.count_rows()} rows, more than it holds; copy it again"
            )


def _tables(path: Path) -> list[Path]:
    return [each for each in sorted(path.glob("*.lance")) if not each.name.endswith(_BESIDE)] if path.is_dir() else []


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[Any]:
    try:
        with guarded(path, "copy it again"):
            yield
    except BaseException as error:  # Rust's own is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise DatasetError(f"{path} is damaged ({reason(error)}); copy it again") from error
