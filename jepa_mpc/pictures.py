"""Pictures as a model sees them: square, small, three colours of eight bits; those of several cameras side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.errors import UserError, reason


class PictureStats(NamedTuple):
    """Mean and std of training's pictures, (H, W, 3) uint8 each, of V cameras (H, V·W, 3)."""

    mean: NDArray[np.uint8]
    std: NDArray[np.uint8]


def require_pictures(values: ArrayLike, what: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Returns pictures (..., H, W, 3) uint8, of that height and width if given. Raises `UserError`, which says what
    they are, on anything else.
    """
    height, width = size or ("H", "W")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # of several shapes, or on another device
        raise UserError(f"{what} must be an array (..., {height}, {width}, 3): {reason(error)}") from error
    if array.dtype != np.uint8:
        raise UserError(f"{what} must be uint8, 0 to 255, not {array.dtype}; convert them, from 0…1 by × 255")
    if array.ndim < 3 or array.shape[-1] != 3 or 0 in array.shape[-3:] or (size and array.shape[-3:-1] != size):
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


def views(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Returns what each camera shows (H, W, 3) of pictures that lie side by side (..., H, V·W, 3)."""
    height, width = picture.shape[-3:-1]
    return np.split(picture, width // height, axis=-2)


def side_by_side(
    pictures: NDArray[np.uint8] | Sequence[NDArray[np.uint8] | None], size: tuple[int, int], what: object
) -> NDArray[np.uint8]:
    """Returns what one camera or several show as a model sees it: (H, V·W, 3), the centre square of each.

    Args:
        pictures: one (H, W, 3), or of several cameras a list of one each, None for those that show nothing; or all in
            one array, side by side.
        size: height, and width of all together.
        what: what they are of, for errors.

    Raises `UserError` on any others.
    """
    height, width = size
    num_views = width // height
    if num_views == 1:
        (picture,) = pictures if isinstance(pictures, list | tuple) and len(pictures) == 1 else (pictures,)
        return square(np.asarray(picture), height, what)
    if not isinstance(pictures, list | tuple):
        whole = np.asarray(pictures)
        pictures = np.split(whole, num_views, axis=1) if whole.shape[1:2] == (num_views * len(whole),) else [whole]
    if len(pictures) != num_views:
        raise UserError(f"{what} must be {num_views} pictures, one a camera, not {len(pictures)}")
    blank = np.zeros((height, height, 3), np.uint8)
    return np.concatenate([blank if each is None else square(each, height, what) for each in pictures], axis=1)
