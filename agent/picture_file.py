"""A picture of the user's own, such as a goal: what serves, and how the model sees it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import UserError, reason
from jepa_mpc.pictures import FORMATS, MAX_PIXELS, require_size, side_by_side, square

if TYPE_CHECKING:
    from PIL.Image import Image

_SAME_SHAPE = 0.02  # share by which width over height may differ from what it should be
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def load_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Returns a user's picture as the model saw its own: (size, size, 3) uint8, the centre square, averaged down.

    It is turned as its EXIF data say, and what is transparent becomes white, with a warning. Raises `UserError` on
    what cannot serve; other formats and sizes are refused before anything is decoded.
    """
    return square(_read(path, size), size, str(path))


def load_goal(path: Path, size: tuple[int, int], cameras: Sequence[str], camera: str | None) -> NDArray[np.uint8]:
    """Returns a user's picture as an agent of V cameras takes it for a goal: (H, V·W, 3).

    Args:
        path: the picture, of one camera, or of all side by side, of which one may be chosen.
        size: height, and width of all together.
        cameras: their names; none where there is one.
        camera: which of them took it, so that the others show nothing.

    Raises `UserError` on what cannot serve.
    """
    height, width = size
    if camera is not None and camera not in cameras:
        cure = f"must be one of {', '.join(cameras)}" if cameras else "is for models of several cameras; leave it out"
        raise UserError(f"--goal-camera {camera} {cure}")
    if width == height:
        return load_picture(path, height)
    whole, num_views = _read(path, height), width // height
    is_of_all = abs(whole.shape[1] / whole.shape[0] - num_views) <= _SAME_SHAPE * num_views
    parts = np.array_split(whole, num_views, axis=1) if is_of_all else [whole] * num_views
    if camera is not None:
        shown = [part if each == camera else None for each, part in zip(cameras, parts, strict=True)]
        return side_by_side(shown, size, str(path))
    if not is_of_all:
        found = f"{path} is {whole.shape[1]}×{whole.shape[0]}, not {num_views} squares side by side"
        raise UserError(f"{found}; if one camera took it, say which: --goal-camera {' or '.join(cameras)}")
    return side_by_side(parts, size, str(path))


def _read(path: Path, size: int) -> NDArray[np.uint8]:
    """Returns the picture (H, W, 3), of which no side is smaller than that."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file; name a picture")
    too_large = f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels; scale it down"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                require_size(file.width, file.height, size, path)
                if file.width * file.height > MAX_PIXELS:
                    raise UserError(too_large)
                if file.mode not in _EIGHT_BIT:
                    raise UserError(f"{path} has more than 8 bits a channel; save it with 8")
                image = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise UserError(f"no picture at {path}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no picture that can be read; use {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(too_large) from error
    except UserError:
        raise
    except Exception as error:  # whatever the decoders raise on a damaged file
        raise UserError(f"{path} is damaged ({reason(error)}); save it again as PNG") from error
    return np.asarray(_on_white(path, image).convert("RGB"))


def _on_white(path: Path, image: "Image") -> "Image":
    """Returns the picture, blended on white where it is transparent, which is warned of."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if np.asarray(image.getchannel("A")).min() < 255:
        warnings.warn(f"{path} is transparent in parts; the agent is shown white there", stacklevel=3)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
