"""A picture of the user's own, such as a goal: what serves, and how the model sees it."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import UserError, reason
from jepa_mpc.pictures import FORMATS, MAX_PIXELS, require_size, square

if TYPE_CHECKING:
    from PIL.Image import Image

_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def load_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Returns a user's picture as the model saw its own: (size, size, 3) uint8, the centre square, averaged down.

    It is turned as its EXIF data say, and what is transparent becomes white, with a warning. Raises `UserError` on
    what cannot serve; other formats and sizes are refused before anything is decoded.
    """
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
    return square(np.asarray(_on_white(path, image).convert("RGB")), size, str(path))


def _on_white(path: Path, image: "Image") -> "Image":
    """Returns the picture, blended on white where it is transparent, which is warned of."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if np.asarray(image.getchannel("A")).min() < 255:
        warnings.warn(f"{path} is transparent in parts; the agent is shown white there", stacklevel=3)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
