"""Our own HDF5 files, and those of le-wm and stable-worldmodel, in whatever coding there is a decoder for.

Pictures are every column (N, H, W, 3) of uint8: `pixels` is the one camera of most files.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.dataset import (
    episode_lengths,
    randomised_episodes,
    read_info,
    recorded_info,
    state_column,
)
from jepa_mpc.world_model.data.hdf5 import column, column_names, guarded, local, open_file
from jepa_mpc.world_model.data.pictures import is_pictures, read_pictures
from jepa_mpc.world_model.data.sources.base import Numbers, Source, numbered, source


@source("hdf5")
class HDF5(Source):
    """One file of rows, whose episodes lie one after another (see `data/dataset.py`)."""

    looks = "a file .h5 of ours, of le-wm or of stable-worldmodel"

    def __init__(self, path: Path):
        super().__init__(path)
        with guarded(path):
            file = open_file(path)
            info = read_info(file, "write it again")
            self.lengths = episode_lengths(file, info.picture_columns if info else ("pixels",))
            self._begin, rows = np.cumsum(self.lengths) - self.lengths, {"N": int(self.lengths.sum())}
            self._action = column(file, "action", "NA", "float", rows)
            state = state_column(file) if info is None or info.angles else None
            felt = file.id.links.exists(b"proprio")
            self._proprio = column(file, "proprio", "NP", "float", rows) if felt else None
            self._state = column(file, state, "NQ", "float", rows) if state else None
            self._pictures = {
                name.removeprefix("pixels/"): column(file, name, "NHW3", "uint8", rows)
                for name in column_names(file)
                if is_pictures(local(file, name)) and len(file[name]) == rows["N"]
            }
            self.randomised = frozenset(np.flatnonzero(randomised_episodes(file, len(self.lengths))).tolist())
            num_states = 0 if self._state is None else self._state.shape[1]
            self.info = info or recorded_info(num_states, action_block=0)
            if self._proprio is not None:
                self.proprio_names = numbered(self.info.proprio_names, self._proprio.shape[1])
        self.cameras = tuple(self._pictures)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"

    def read(self, episode: int) -> Numbers:
        rows = slice(self._begin[episode], self._begin[episode] + self.lengths[episode])
        with guarded(self.path):
            action = self._action[rows].astype(float)
            state = np.empty((len(action), 0)) if self._state is None else self._state[rows].astype(float)
            felt = None if self._proprio is None else self._proprio[rows].astype(float)
        return Numbers(action, state, None, felt)

    def stream(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        begin = self._begin[episode]
        return read_pictures(self.path, self._pictures[camera], begin, begin + self.lengths[episode])
