"""Minari's data sets in HDF5: a group an episode, whose observations have one row more than its actions.

Pictures are every observation of (H, W, 3) uint8, as they are or as JPEG; all other numbers are the state.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.dataset import recorded_info
from jepa_mpc.world_model.data.hdf5 import DatasetError, column, column_names, guarded, local, open_file
from jepa_mpc.world_model.data.pictures import decode, is_pictures, read_pictures
from jepa_mpc.world_model.data.sources.base import Numbers, Source, source

if TYPE_CHECKING:
    import h5py

_NAME = "main_data.hdf5"


@source("minari")
class Minari(Source):
    """One data set's folder, or the file in it."""

    looks = f"a folder with data/{_NAME}"

    def __init__(self, path: Path):
        super().__init__(path)
        self._path = path if path.is_file() else next(place for place in _places(path) if place.is_file())
        with guarded(self._path):
            self._file = open_file(self._path)
            names = [name for name in self._file if name.startswith("episode_") and name[8:].isdecimal()]
            self._episodes = sorted(names, key=lambda name: int(name[8:]))
            if not self._episodes:
                raise DatasetError(f"{self._path} has no episodes, which are groups episode_0 and so on; name another")
            lengths = [len(local(self._file, f"{name}/actions")) + 1 for name in self._episodes]
            group = f"{self._episodes[0]}/observations"
            there = {name.removeprefix(group): local(self._file, name) for name in column_names(self._file, group)}
        self.lengths = np.array(lengths, np.int64)
        self._cameras = {
            name.lstrip("/") or "observations": name
            for name, found in there.items()
            if is_pictures(found) or _is_coded(found)
        }
        self._states = [name for name, found in there.items() if found.dtype.kind == "f" and len(found.shape) == 2]
        self.cameras = tuple(self._cameras)
        widths = {name.lstrip("/"): there[name].shape[1] for name in self._states}
        self.state_names = tuple(f"{name}.{index}" for name, width in widths.items() for index in range(width))
        self.info = recorded_info(len(self.state_names))
        if not self.cameras:
            raise DatasetError(f"{self._path} has no pictures among its observations; record it with its cameras'")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.name == _NAME or any(place.is_file() for place in _places(path))

    def read(self, episode: int) -> Numbers:
        place, rows = self._episodes[episode], self.lengths[episode]
        with guarded(self._path):
            done = column(self._file, f"{place}/actions", "NA", "float", {"N": rows - 1})[:].astype(float)
            states = [
                column(self._file, f"{place}/observations{name}", "NQ", "float", {"N": rows})[:].astype(float)
                for name in self._states
            ]
        last = np.full((1, done.shape[1]), np.nan)  # from which nothing was done
        return Numbers(np.concatenate([done, last]), np.concatenate([np.empty((rows, 0)), *states], axis=1), None)

    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        name, rows = f"{self._episodes[episode]}/observations{self._cameras[camera]}", self.lengths[episode]
        with guarded(self._path):
            found = local(self._file, name)
            if not _is_coded(found):
                column(self._file, name, "NHW3", "uint8", {"N": rows})
        if not _is_coded(found):
            yield from read_pictures(self._path, found, 0, rows)
            return
        for row in range(rows):
            with guarded(self._path):
                content = found[row].tobytes()
            yield decode(content, f"{self._path}: column {name!r}, row {row}")


def _places(path: Path) -> tuple[Path, Path]:
    return path / "data" / _NAME, path / _NAME


def _is_coded(found: "h5py.Dataset") -> bool:
    """Says whether a column holds picture files: bytes, of one length or of several."""
    import h5py

    kind = h5py.check_vlen_dtype(found.dtype) or found.dtype
    if kind != np.uint8 or len(found.shape or ()) != (1 if found.dtype.kind == "O" else 2) or not len(found):
        return False
    return found[0].tobytes()[:2] == b"\xff\xd8"  # with which JPEG begins
