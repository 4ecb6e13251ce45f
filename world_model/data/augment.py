"""Data augmentation: pictures varied in training, so that one that is a little different still shows the same scene.

Notable: within a window the draw changes now and then, while what is to be predicted stays the next embedding. Across
such a change a prediction can be right only where embeddings look through the difference. So invariance comes from
prediction itself: no loss of its own, no second encoding, and three draws in ten leave pictures as they are. Frames of
one draw are moved alike, so motion among them stays as it was.
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_mpc.distributed import num_ranks, rank
from jepa_mpc.settings import Range, Share
from jepa_mpc.world_model.observation import draw_changes

Factor = Annotated[float, Range(1, 100)]

_OFTEN, _SELDOM = 0.7, 0.3  # chances that a draw moves a picture, and that it blurs it, adds noise, takes colour away
_LUMINANCE = (0.299, 0.587, 0.114)
_MIDDLE = 100.0  # of 255: what contrast turns about
_SMOOTH, _SMOOTH_VARIANCE = (0.25, 0.5, 0.25), 0.5  # a blur, of which repeated ones add up in variance
_NOISE_BANK = 2**20  # numbers drawn once, of which each picture takes a stretch: fresh ones cost more than all else


@dataclass(frozen=True)
class AugmentConfig:
    """How far pictures are varied. Lengths are in pixels of a picture 64 wide."""

    clean: Share = 0.3
    """Share of the draws that leave pictures as they are."""
    change: Share = 0.25
    """Chance, from each frame of a window to the next, of another draw."""
    brightness: Factor = 2.2
    """Largest factor by which pictures are darkened; they are brightened by its root at most."""
    contrast: Factor = 2.2
    """The same for contrast, about a grey of 100."""
    cast: Share = 0.3
    """Largest share that a single colour gains or loses."""
    grey: Share = 1.0
    """Largest share of colour that is lost."""
    noise: Annotated[float, Range(0, 255)] = 20.0
    """Largest std of the noise, of 255."""
    blur: Annotated[float, Range(0, 16)] = 1.5
    """Largest std of the blur."""
    shift: Annotated[float, Range(0, 64)] = 4.5
    """Farthest shift, right, left, up or down."""
    angle: Annotated[float, Range(0, 180)] = 5.0
    """Largest turn either way, in degrees."""
    zoom: Annotated[float, Range(0, 0.5)] = 0.08
    """Largest share by which pictures are scaled."""


class Draws(NamedTuple):
    """N ways to vary a picture; sizes in its own pixels."""

    colour: Tensor  # (N, 3, 4), a matrix and what it adds
    place: Tensor  # (N, 2, 3), where the result is taken from
    moved: Tensor  # (N,) whether it is
    variance: Tensor  # (N,) of the blur
    noise: Tensor  # (N,) std
    stretch: Tensor  # (N,) of the noise bank


def augment(pixels: Tensor, config: AugmentConfig | None, generator: torch.Generator) -> Tensor:
    """Varies this rank's windows (B, T, H, V·W, 3) uint8 of a batch; returns floats from 0 to 255 of the same shape, or
    the same if nothing is to be varied.
    """
    if config is None:
        return pixels
    B, T, H, W, _ = pixels.shape
    if (num_views := W // H) > 1:  # each camera's pictures are varied for themselves
        views = pixels.unflatten(3, (num_views, H)).movedim(3, 1).flatten(0, 1)
        shows_nothing = (views == 0).flatten(2).all(2)[..., None, None, None]  # and still does
        varied = augment(views, config, generator).masked_fill(shows_nothing, 0)
        return varied.unflatten(0, (B, num_views)).movedim(1, 3).flatten(3, 4)
    first, total = rank() * B, num_ranks() * B
    draws = draw(config, total * T, H, generator)  # of the whole batch, whoever has which windows
    nth = draw_changes(total, T, config.change, generator)
    number = T * torch.arange(total, device=nth.device)[:, None] + nth
    mine = number[first : first + B].flatten()
    pictures = pixels.reshape(B * T, H, W, 3).permute(0, 3, 1, 2).contiguous().float()
    varied = vary(pictures, Draws(*(each[mine] for each in draws)))
    return varied.permute(0, 2, 3, 1).view(B, T, H, W, 3)


def draw(config: AugmentConfig, num: int, side: int, generator: torch.Generator) -> Draws:
    """Draws so many ways to vary pictures of that side."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator, device=generator.device)

    def chance(probability: float) -> Tensor:
        return uniform(0, 1) < probability

    varied = ~chance(config.clean)
    brightness, contrast = (
        torch.exp(math.log(most) * uniform(-1, 0.5) * varied) for most in (config.brightness, config.contrast)
    )
    gain = brightness[:, None] * (1 + uniform(-config.cast, config.cast, 3) * varied[:, None])
    lost = (uniform(0, config.grey) * (varied & chance(_SELDOM)))[:, None, None]
    luminance = torch.tensor(_LUMINANCE, device=generator.device).expand(3, 3)
    matrix = (1 - lost) * torch.eye(3, device=generator.device) + lost * luminance
    added = gain * (1 - contrast[:, None]) * _MIDDLE
    colour = torch.cat([(gain * contrast[:, None])[:, :, None] * matrix, added[:, :, None]], dim=2)

    unit, angle = side / 64, math.radians(config.angle)
    turn, scale = uniform(-angle, angle), 1 + uniform(-config.zoom, config.zoom)
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    right, down = uniform(-config.shift, config.shift, 2).mul(2 * unit / side).unbind(1)
    place = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(num, 2, 3)
    variance = (uniform(0, config.blur * unit) * (varied & chance(_SELDOM))).square()
    noise = uniform(0, config.noise) * (varied & chance(_SELDOM))
    stretch = uniform(0, _NOISE_BANK).long()
    return Draws(colour, place, varied & chance(_OFTEN), variance, noise, stretch)


def vary(pictures: Tensor, draws: Draws) -> Tensor:
    """Varies pictures (N, 3, H, W), floats from 0 to 255, each in its way; what it is given may be overwritten."""
    N, _, H, W = pictures.shape
    if len(some := draws.moved.nonzero()[:, 0]):
        grid = F.affine_grid(draws.place[some], [len(some), 3, H, W], align_corners=False)
        edge = 1 - 1 / grid.new_tensor([W, H])  # middles of the outermost pixels: what lies beyond is theirs
        pictures[some] = F.grid_sample(pictures[some], grid.clamp(-edge, edge), align_corners=False)
    left = draws.variance / _SMOOTH_VARIANCE
    while len(some := (left > 0).nonzero()[:, 0]):
        sharp = pictures[some].contiguous(memory_format=torch.channels_last)
        pictures[some] = torch.lerp(sharp, _smooth(sharp), left[some].clamp(max=1).view(-1, 1, 1, 1)).contiguous()
        left = left - 1
    matrix, added = draws.colour.split([3, 1], dim=2)
    pictures = torch.baddbmm(added, matrix, pictures.view(N, 3, H * W)).view(N, 3, H, W)
    if len(some := draws.noise.nonzero()[:, 0]):
        size = 3 * H * W
        stretches = _noise_bank(pictures.device, size).unfold(0, size, 1)[draws.stretch[some]]
        pictures[some] += draws.noise[some].view(-1, 1, 1, 1) * stretches.view(-1, 3, H, W)
    return pictures.clamp_(0, 255)


def _smooth(pictures: Tensor) -> Tensor:
    weights = torch.tensor(_SMOOTH, device=pictures.device)
    kernel = (weights[:, None] * weights).expand(3, 1, 3, 3).contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


@functools.cache
def _noise_bank(device: torch.device, more: int) -> Tensor:
    """Returns the bank, and so many numbers more that a stretch may begin anywhere in it."""
    return torch.randn(_NOISE_BANK + more, generator=torch.Generator().manual_seed(0)).to(device)
