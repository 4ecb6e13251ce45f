"""Pictures that stay in their files: rows of HDF5 columns, read at random, for data sets that memory does not hold."""

import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.hdf5 import DatasetError, column, guarded, open_file

if TYPE_CHECKING:
    import h5py

MAPPED_BYTES = 512 * 2**20  # read before the pages are given back, which keeps the process as small as this
_UNWRITTEN = -1  # instead of an offset: a picture of zeros that is not in the file


class Frames:
    """The pictures of several files, one after another: (N, H, W, 3) uint8, indexed by rows as an array is. Those of
    several columns, a camera each, lie side by side: (N, H, V·W, 3).

    Where pictures lie uncompressed in chunks of one, as `write_dataset` and stable-worldmodel put them, they are copied
    from the mapped file, without HDF5 on the way, so several threads read side by side.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path], names: Sequence[str] = ("pixels",)):
        """Raises `DatasetError` where a file is none, or ends before its last picture."""
        self._files = [[_open(path, name) for name in names] for path in paths]
        self._ends = np.cumsum([columns[0].shape[0] for columns in self._files])
        shapes = {column.shape[1:] for columns in self._files for column in columns}
        if len(shapes) > 1:
            sizes, names = ", ".join(map(str, sorted(shapes))), ", ".join(map(str, paths))
            raise DatasetError(f"{names}: pictures differ in size: {sizes}; train on each by itself")
        height, width, colours = shapes.pop()
        self.shape: tuple[int, ...] = (int(self._ends[-1]), height, len(names) * width, colours)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Returns pictures (..., H, W, 3) at rows (...), or at a slice of rows."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        flat = wanted.reshape(-1)
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"rows must lie in 0–{len(self) - 1}")
        if len(self._files) == 1:
            pictures = _read(self._files[0], flat)
        else:
            pictures = np.empty((len(flat), *self.shape[1:]), np.uint8)
            which = np.searchsorted(self._ends, flat, side="right")
            for index in np.unique(which):
                file, here = self._files[index], which == index
                pictures[here] = _read(file, flat[here] - (self._ends[index] - file[0].shape[0]))
        return pictures.reshape(*wanted.shape, *self.shape[1:])


def _open(path: Path, name: str) -> "_Plain | h5py.Dataset":
    """Returns the file's column, through HDF5 only if it must be."""
    with guarded(path):
        file = open_file(path)
        pixels = column(file, name, "NHW3", "uint8")
        if pixels.id.get_create_plist().get_nfilters() or pixels.chunks != (1, *pixels.shape[1:]):
            return pixels
        plain = _Plain(path, pixels)
        file.close()
        return plain


def _read(columns: "Sequence[_Plain | h5py.Dataset]", rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    pictures = [_read_column(each, rows) for each in columns]
    return pictures[0] if len(pictures) == 1 else np.concatenate(pictures, axis=2)


def _read_column(file: "_Plain | h5py.Dataset", rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    if isinstance(file, _Plain):
        return file[rows]
    once, inverse = np.unique(rows, return_inverse=True)  # HDF5 wants rows in order and each once
    with guarded(Path(file.file.filename)):
        return file[once][inverse]


class _Plain:
    """A column whose pictures lie in the file as they are, each at an offset of its own."""

    def __init__(self, path: Path, pixels: "h5py.Dataset"):
        self.shape, self._size = pixels.shape, int(np.prod(pixels.shape[1:]))
        self._offsets = np.full(len(pixels), _UNWRITTEN, np.int64)

        def note(chunk: Any) -> None:
            self._offsets[chunk.chunk_offset[0]] = chunk.byte_offset

        pixels.id.chunk_iter(note)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        if len(self._offsets) and self._offsets.max() + self._size > len(self._map):
            raise DatasetError(f"{path} is truncated: it ends before its last picture; write it again")
        # Every stretch of a picture's length, of which the offsets then choose.
        stretches = (max(len(self._map) - self._size + 1, 0), self._size)
        self._at = np.lib.stride_tricks.as_strided(np.frombuffer(self._map, np.uint8), stretches, (1, 1))
        self._read, self._lock = 0, threading.Lock()

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        offsets = self._offsets[rows]
        pictures = self._at[np.maximum(offsets, 0)]
        if (offsets == _UNWRITTEN).any():
            pictures[offsets == _UNWRITTEN] = 0
        with self._lock:
            self._read += pictures.nbytes
            if self._read > MAPPED_BYTES:
                self._map.madvise(mmap.MADV_DONTNEED)
                self._read = 0
        return pictures.reshape(len(rows), *self.shape[1:])
