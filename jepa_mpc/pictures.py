"""Pictures as a model sees them: square, small, three colours of eight bits."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import UserError


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
