"""Pictures as a model sees them: square, small, three colours of eight bits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.errors import UserError, reason


class PictureStats(NamedTuple):
    """Mean and std of training's pictures, (H, W, 3) uint8 each."""

    mean: NDArray[np.uint8]
    std: NDArray[np.uint8]


def require_pictures(values: ArrayLike, what: str, side: int | None = None) -> NDArray[np.uint8]:
    """Returns pictures (..., H, W, 3) uint8, of that side if given. Raises `UserError`, which says what they are, on
    anything else.
    """
    height, width = (side, side) if side else ("H", "W")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # of several shapes, or on another device
        raise UserError(f"{what} must be an array (..., {height}, {width}, 3): {reason(error)}") from error
    if array.dtype != np.uint8:
        raise UserError(f"{what} must be uint8, 0 to 255, not {array.dtype}; convert them, from 0…1 by × 255")
    if array.ndim < 3 or array.shape[-1] != 3 or 0 in array.shape[-3:] or (side and array.shape[-3:-1] != (side, side)):
        raise UserError(f"{what} must be (..., {height}, {width}, 3), not {array.shape}")
    return array


FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # of files that are read
MAX_PIXELS = 64_000_000  # of a picture that is decoded


def require_size(width: int, height: int, size: int, what: object) -> None:
    """Raises `UserError`, which says what is so small, unless a square of that size can be cut out."""
    if min(width, height) < size:
        raise UserError(f"{what} is {width}×{height}; at least {size}×{size} pixels are needed")


def square(picture: NDArray[np.uint8], size: int, what: object) -> NDArray[np.uint8]:
    """Returns the centre square of a picture (H, W, 3), averaged down to (size, size, 3). Raises `UserError`, which
    says what it is of, on any other array, and on one that is smaller.
    """
    from PIL import Image

    found = np.asarray(picture)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        raise UserError(f"{what} must be (H, W, 3) uint8, not {found.dtype} {found.shape}")
    height, width, _ = found.shape
    require_size(width, height, size, what)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(found[top : top + side, left : left + side])
    return np.asarray(cut.resize((size, size), Image.Resampling.BOX))
