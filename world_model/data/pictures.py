"""Pictures out of what holds them: the bytes of a file, or a column of an HDF5 file."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.pictures import FORMATS, MAX_PIXELS
from jepa_mpc.world_model.data.hdf5 import DatasetError, guarded

if TYPE_CHECKING:
    import h5py

_MEMORY = 64 * 2**20  # of pictures that are read at once


def decode(content: bytes, where: str) -> NDArray[np.uint8]:
    """Returns the picture (H, W, 3) that a data set holds as a file. Raises `DatasetError`, which says where it is, on
    anything else; formats and sizes are refused before anything is decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.width * file.height <= MAX_PIXELS:
                return np.asarray(file.convert("RGB"))
    except Exception as error:  # whatever the decoders raise on damaged bytes
        raise DatasetError(f"{where} is no picture in {', '.join(FORMATS)}; write it again") from error
    raise DatasetError(f"{where} has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down")


def is_pictures(found: "h5py.Dataset") -> bool:
    """Says whether a column is (N, H, W, 3) uint8."""
    return found.dtype == np.uint8 and len(found.shape or ()) == 4 and found.shape[-1] == 3


def read_pictures(path: Path, found: "h5py.Dataset", begin: int, end: int) -> Iterator[NDArray[np.uint8]]:
    """Yields rows of a column of pictures, some at a time in memory."""
    _, height, width, _ = found.shape
    if height * width > MAX_PIXELS:
        raise DatasetError(f"{path}: column {found.name!r} has pictures of {width}×{height}; scale them down")
    step = max(1, _MEMORY // (3 * height * width))
    for row in range(begin, end, step):
        with guarded(path):
            pictures = found[row : min(row + step, end)]
        yield from pictures
