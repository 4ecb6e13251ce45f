"""Pictures: out of what holds them, and as a model sees them, the centre square, averaged down."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.world_model.data.hdf5 import DatasetError, guarded

if TYPE_CHECKING:
    import h5py
    from PIL.Image import Image

MAX_PIXELS = 64_000_000  # of a picture that is decoded
_MEMORY = 64 * 2**20  # of pictures that are read at once
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def square(image: "Image | NDArray[np.uint8]", size: int) -> NDArray[np.uint8]:
    """Returns the centre square of a picture, averaged down: (size, size, 3) uint8."""
    from PIL import Image

    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((size, size), Image.Resampling.BOX, (left, top, left + side, top + side)))


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
