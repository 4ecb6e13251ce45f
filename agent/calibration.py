"""A few pictures of another camera, without labels, make its pictures like those of training.

Notable: only the input is adapted, by gain and offset of each colour and by where the picture lies; the model stays as
it is. What is fitted is the mean of the new pictures to the mean of training's, wherever training's vary little: there
stands what does not move, such as a table's edge, and that says where the camera looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from jepa_mpc.errors import UserError
from jepa_mpc.files import read_json
from jepa_mpc.pictures import PictureStats, require_pictures
from jepa_mpc.settings import Range, Valid, read

# How far a number of the matrix may be from a picture as it is: 30 % of a side, a turn of 37°, 60 % of scale.
_FARTHEST = 0.6
_GAINS = Range(0.1, 10.0)
_Gain = Annotated[float, _GAINS]
_Offset = Annotated[float, Range(-2550, 2550)]
_Entry = Annotated[float, Range(-10, 10)]
_QUIET = 4.0  # std of 255 that a picture's noise may have; where training varies by as much, it counts by half
# Coarse to fine, for far-off edges must meet before they are matched: the std of a blur in pixels of a picture 64 wide,
# and what is fitted, first colours and place, then all.
_COLOURS, _PLACE = (*range(6),), (8, 11)
_SCALE = np.array([0.1] * 6 + [0.02] * 6)  # of what is fitted, so that steps are alike
_STAGES = ((4.0, (*_COLOURS, *_PLACE)), (2.0, (*range(12),)), (1.0, (*range(12),)), (0.0, (*range(12),)))


@dataclass(frozen=True)
class Calibration(Valid):
    """What is done to a new camera's pictures: colours, gain × value + offset each (3,), of the picture that an affine
    map moves: the point (x, y) of the result, from −1 to 1, is taken from matrix · (x, y, 1), row by row (6,).
    """

    gain: tuple[_Gain, _Gain, _Gain] = (1.0, 1.0, 1.0)
    offset: tuple[_Offset, _Offset, _Offset] = (0.0, 0.0, 0.0)
    matrix: tuple[_Entry, _Entry, _Entry, _Entry, _Entry, _Entry] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def rules(self):
        a, b, _, c, d, _ = self.matrix
        yield "matrix", a * d > b * c, f"must neither flatten nor mirror a picture, as {self.matrix} does"

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns pictures (..., H, W, 3) uint8 as training's camera would have taken them. Raises `UserError` on any
        other array.
        """
        pictures = _of_one_camera(require_pictures(pictures, "pictures"))
        flat = torch.from_numpy(np.array(pictures, order="C")).view(-1, *pictures.shape[-3:])
        done = _apply(flat.permute(0, 3, 1, 2).float(), _parameters(self).float())
        return done.round().clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(pictures.shape).numpy()

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Returns what `jepa-mpc calibrate` has written. Raises `UserError` if it is missing or damaged."""
        fix = "make it again with `jepa-mpc calibrate`"
        return read(cls, read_json(path, fix), f"{path} is damaged")

    def describe(self) -> str:
        """Returns what it does, in words: where the picture's middle goes; turn and scale of the nearest similarity."""
        a, b, x, c, d, y = self.matrix
        gains, offsets = (", ".join(_fixed(each, 2) for each in values) for values in (self.gain, self.offset))
        right, down = np.linalg.solve([[a, b], [c, d]], [-x, -y]) / 2
        turn, scale = math.degrees(math.atan2(b - c, a + d)), math.hypot(a + d, c - b) / 2
        return (
            f"colours × {gains} plus {offsets}; pictures will be moved by {_fixed(100 * right, 1)}% of their side "
            f"right and {_fixed(100 * down, 1)}% down, turned clockwise by {_fixed(turn, 1)}° "
            f"and scaled by {1 / scale:.3f}"
        )

    @classmethod
    def fit(cls, pictures: NDArray[np.uint8], usual: PictureStats) -> Calibration:
        """Fits the calibration that brings pictures (N, H, W, 3) uint8 to what training's usually are.

        Raises `UserError` where nothing near does, as of pictures that show nothing. A scene that is like training's in
        outline is taken for it.
        """
        from scipy.optimize import least_squares

        pictures, mean, std = (_of_one_camera(require_pictures(each, "pictures")) for each in (pictures, *usual))
        if pictures.ndim != 4 or not len(pictures) or not pictures.shape[1:] == mean.shape == std.shape:
            raise UserError(f"to calibrate by, pictures must be (N, {str(mean.shape)[1:]}, not {pictures.shape}")
        # In doubles: slopes are found by steps that single precision does not see.
        source, target, spread = (_channels(each) for each in (np.mean(pictures, axis=0), mean, std))
        weight = _QUIET / (_QUIET + spread)
        found = _parameters(cls())
        for sigma, fitted in _STAGES:
            width, free = sigma * source.shape[-1] / 64, list(fitted)
            blurred = _blurred(source, width), _blurred(target, width)
            misfit = partial(_misfit, *blurred, weight, found, free)
            start, scale = found[free].numpy(), _SCALE[free]
            best = least_squares(misfit, start, loss="soft_l1", f_scale=_QUIET, x_scale=scale)
            found[free] = torch.from_numpy(best.x)
        gain, offset, place = found[:3].tolist(), (255 * found[3:6]).tolist(), found[6:].tolist()
        far = max(abs(each - usual) for each, usual in zip(place, cls().matrix, strict=True))
        if not (far <= _FARTHEST and not any(map(_GAINS.refuses, gain))):
            raise UserError(
                "these pictures cannot be made like training's; take them of the same scene, with the camera and the "
                "light about as in training"
            )
        return cls(tuple(gain), tuple(offset), tuple(place))


def _of_one_camera(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pictures.shape[-3] != pictures.shape[-2]:
        raise UserError(f"a calibration is of one camera's square pictures, not of {pictures.shape}")
    return pictures


def _fixed(number: float, digits: int) -> str:
    """Returns a number of so many digits, and 0 without a sign."""
    return f"{round(number, digits) + 0.0:.{digits}f}"


def _parameters(calibration: Calibration) -> torch.Tensor:
    """Returns all twelve numbers, offsets in shares of 255."""
    colours = (*calibration.gain, *(each / 255 for each in calibration.offset))
    return torch.tensor([*colours, *calibration.matrix], dtype=torch.float64)


def _misfit(
    source: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    found: torch.Tensor,
    free: list[int],
    numbers: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the weighted misfit (3·H·W,) of the source, with these numbers in place of those found at `free`."""
    tried = found.clone()
    tried[free] = torch.from_numpy(numbers)
    seen = _moved(torch.ones_like(source), tried, "zeros")  # there is nothing to match beyond the edge
    return (weight * seen * (_apply(source, tried) - target)).flatten().numpy()


def _apply(pictures: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Moves and colours pictures (N, 3, H, W); beyond its edge, a picture's edge goes on."""
    gain, offset = parameters[:3].view(3, 1, 1), 255 * parameters[3:6].view(3, 1, 1)
    return gain * _moved(pictures, parameters, "border") + offset


def _moved(pictures: torch.Tensor, parameters: torch.Tensor, beyond: str) -> torch.Tensor:
    place = parameters[6:].view(1, 2, 3).expand(len(pictures), -1, -1)
    grid = F.affine_grid(place, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode=beyond, align_corners=False)


def _channels(picture: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, np.float64)).permute(2, 0, 1)[None]


def _blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(picture.numpy(), (0, 0, sigma, sigma), mode="nearest"))
