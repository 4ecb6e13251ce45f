"""A few pictures of another camera, without labels, make its pictures like those of training.

Notable: only the input is adapted, by gain and offset of each colour and by where the picture lies; the model stays as
it is. What is fitted is the mean of the new pictures to the mean of training's, wherever training's vary little: there
stands what does not move, such as a table's edge, and that says where the camera looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from jepa_mpc.files import read_json
from jepa_mpc.settings import Valid, read

_QUIET = 4.0  # std of 255 that a picture's noise may have; where training varies by as much, it counts by half
# Coarse to fine, for far-off edges must meet before they are matched: the std of a blur in pixels, and what is fitted,
# first colours and place, then all.
_COLOURS, _PLACE = (*range(6),), (8, 11)
_STAGES = ((4.0, (*_COLOURS, *_PLACE)), (2.0, (*range(12),)), (1.0, (*range(12),)), (0.0, (*range(12),)))


@dataclass(frozen=True)
class Calibration(Valid):
    """What is done to a new camera's pictures: colours, gain × value + offset each (3,), of the picture that an affine
    map moves: the point (x, y) of the result, from −1 to 1, is taken from matrix · (x, y, 1), row by row (6,).
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    matrix: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns pictures (..., H, W, 3) as training's camera would have taken them."""
        flat = torch.from_numpy(np.ascontiguousarray(pictures)).view(-1, *pictures.shape[-3:])
        done = _apply(flat.permute(0, 3, 1, 2).float(), _parameters(self).float())
        return done.round().clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(pictures.shape).numpy()

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Returns what `jepa-mpc calibrate` has written. Raises `UserError` if it is missing or damaged."""
        fix = "make it again with `jepa-mpc calibrate`"
        return read(cls, read_json(path, fix), f"{path} is damaged")

    def describe(self) -> str:
        """Returns what it does, in words; the turn and the scale are those of the nearest similarity."""
        a, b, right, c, d, down = self.matrix
        gains, offsets = (", ".join(f"{each:.2f}" for each in values) for values in (self.gain, self.offset))
        turn, scale = math.degrees(math.atan2(c - b, a + d)), math.hypot(a + d, c - b) / 2
        return (
            f"colours × {gains} plus {offsets}; the picture moved by {-right / 2:.1%} of its side right and "
            f"{-down / 2:.1%} down, turned by {-turn:.1f}° and scaled by {1 / scale:.3f}"
        )

    @classmethod
    def fit(cls, pictures: NDArray[np.uint8], mean: NDArray[np.uint8], std: NDArray[np.uint8]) -> Calibration:
        """Returns what brings pictures (N, H, W, 3) to training's, of which mean and std (H, W, 3) are known."""
        from scipy.optimize import least_squares

        # In doubles: slopes are found by steps that single precision does not see.
        source, target, weight = (_channels(each) for each in (np.mean(pictures, axis=0), mean, std))
        weight = _QUIET / (_QUIET + weight)
        found = _parameters(cls())
        for sigma, fitted in _STAGES:
            here, there, free = _blurred(source, sigma), _blurred(target, sigma), list(fitted)

            def misfit(numbers: NDArray[np.float64], here=here, there=there, free=free) -> NDArray[np.float64]:
                tried = found.clone()
                tried[free] = torch.from_numpy(numbers)
                seen = _moved(
                    torch.ones_like(here), tried, "zeros"
                )  # beyond a picture's edge there is nothing to match
                return (weight * seen * (_apply(here, tried) - there)).flatten().numpy()

            start, scale = found[free].numpy(), _SCALE[free]
            best = least_squares(misfit, start, loss="soft_l1", f_scale=_QUIET, x_scale=scale)
            found[free] = torch.from_numpy(best.x)
        colours, place = found[:6].tolist(), found[6:].tolist()
        return cls(tuple(colours[:3]), tuple(255 * each for each in colours[3:]), tuple(place))


_SCALE = np.array([0.1] * 6 + [0.02] * 6)  # of what is fitted, so that steps are alike


def _parameters(calibration: Calibration) -> torch.Tensor:
    """Returns all twelve numbers, offsets in shares of 255."""
    colours = (*calibration.gain, *(each / 255 for each in calibration.offset))
    return torch.tensor([*colours, *calibration.matrix], dtype=torch.float64)


def _apply(pictures: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Moves and colours pictures (N, 3, H, W); beyond its edge, a picture's edge goes on."""
    gain, offset = parameters[:3].view(3, 1, 1), 255 * parameters[3:6].view(3, 1, 1)
    return gain * _moved(pictures, parameters, "border") + offset


def _moved(pictures: torch.Tensor, parameters: torch.Tensor, beyond: str) -> torch.Tensor:
    grid = F.affine_grid(parameters[6:].view(1, 2, 3).expand(len(pictures), -1, -1), list(pictures.shape), False)
    return F.grid_sample(pictures, grid, padding_mode=beyond, align_corners=False)


def _channels(picture: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, np.float64)).permute(2, 0, 1)[None]


def _blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(picture.numpy(), (0, 0, sigma, sigma), mode="nearest"))
