"""From a picture to features: a small strided convolutional network by default, a ViT as an option.

The projector's BatchNorm, rather than LayerNorm, lets SIGReg shape the distribution over the batch freely
(LeWorldModel, arXiv 2603.19312, section 3).
"""

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.settings import Range
from jepa_mpc.world_model.model.batchnorm import BatchNorm

# Within these, products of sizes cannot overflow, so a model of any settings can be described before it is made.
Size = Annotated[int, Range(1, 2**16)]
Side = Annotated[int, Range(1, 4096)]
Depth = Annotated[int, Range(1, 256)]
Views = Annotated[int, Range(1, 16)]


@dataclass(frozen=True)
class EncoderConfig:
    kind: Literal["conv", "vit"] = "conv"
    image_size: Side = 64
    """Side of each camera's picture."""
    num_views: Views = 1
    """Cameras, whose pictures lie side by side; the data set says."""
    channels: tuple[Size, ...] = (16, 32, 64, 128)
    """Conv: output channels of each layer; every layer halves the picture."""
    pooled: bool = False
    """Conv: features are also the means over the picture of the last two layers' maps. What a thing looks like, such as
    which way it points, need then be learned but once for all places."""
    patch_size: Side = 8
    """ViT: side of a patch, in pixels."""
    width: Size = 192
    """ViT: token width."""
    depth: Depth = 6
    """ViT: transformer layers."""
    num_heads: Size = 3
    """ViT: attention heads."""

    @property
    def picture_size(self) -> tuple[int, int]:
        """Returns height and width of an observation's picture."""
        return self.image_size, self.num_views * self.image_size


class ConvEncoder(nn.Module):
    """Strided 4×4 convolutions with BatchNorm; features are the flattened last map, and the means of the last two if
    wanted.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        if not (1 + config.pooled) <= len(config.channels) < config.image_size.bit_length():
            raise UserError(f"{len(config.channels)} encoder.channels do not fit pictures of side {config.image_size}")
        self.pooled = config.pooled
        sizes = (3, *config.channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                    BatchNorm(after),
                    nn.ReLU(inplace=True),
                )
                for before, after in itertools.pairwise(sizes)
            ),
            nn.Flatten(),
        )
        self.num_features = config.channels[-1] * (config.image_size // 2 ** len(config.channels)) ** 2
        if config.pooled:
            self.num_features += sum(config.channels[-2:])

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pictures (N, 3, H, W) to features (N, F)."""
        if not self.pooled:
            return self.layers(pixels)
        before_last = self.layers[:-2](pixels)
        last = self.layers[-2](before_last)
        return torch.cat([last.flatten(1), before_last.mean((2, 3)), last.mean((2, 3))], dim=1)


_PROPRIO_FEATURES, _FAR = 64, 10.0  # what is farther off, in stds, says no more
_EPS = 1e-12  # of LayerNorms, as in the published ViTs


class ViTEncoder(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2021); features are the class token."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        if config.width % config.num_heads:
            raise UserError(f"encoder.width {config.width} must be a multiple of encoder.num_heads {config.num_heads}")
        if config.patch_size > config.image_size:
            raise UserError(f"encoder.patch_size {config.patch_size} exceeds pictures of side {config.image_size}")
        self.patches = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        num_patches = (config.image_size // config.patch_size) ** 2
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.randn(1, 1 + num_patches, config.width).mul_(0.02))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.num_heads,
            4 * config.width,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=_EPS,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width, eps=_EPS)
        self.num_features = config.width

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pictures (N, 3, H, W) to features (N, F)."""
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1) + self.position
        return self.norm(self.layers(tokens)[:, 0])


class MultiModalEncoder(nn.Module):
    """Encodes each camera's picture by the same encoder, and what the robot feels of itself by one layer. Features are
    all of theirs; a camera that shows nothing has learned ones, and a number that is not known is told apart from 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, each: ConvEncoder | ViTEncoder, num_views: int, proprio_dim: int):
        super().__init__()
        self.each, self.num_views, self.proprio_dim = each, num_views, proprio_dim
        self.absent = nn.Parameter(torch.zeros(num_views, each.num_features))
        self.proprio = nn.Linear(2 * proprio_dim, _PROPRIO_FEATURES) if proprio_dim else None
        self.num_features = num_views * each.num_features + _PROPRIO_FEATURES * bool(proprio_dim)
        self.register_buffer("mean", torch.zeros(proprio_dim))
        self.register_buffer("std", torch.ones(proprio_dim))

    def forward(self, pixels: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Maps normalised pictures (N, 3, H, V·W) and numbers (N, P) to features (N, F); None: none is known."""
        views = pixels.unflatten(3, (self.num_views, -1)).movedim(3, 1)  # (N, V, 3, H, W)
        seen = self.each(views.flatten(0, 1)).view(*views.shape[:2], -1)
        shows = (views > -1).flatten(2).any(2, keepdim=True)
        features = torch.where(shows, seen, self.absent).flatten(1)
        if self.proprio is None:
            return features
        if proprio is None:
            proprio = features.new_full((len(features), self.proprio_dim), torch.nan)
        unknown = proprio.isnan()
        values = ((proprio - self.mean) / self.std).clamp(-_FAR, _FAR).masked_fill(unknown, 0.0)
        felt = F.relu(self.proprio(torch.cat([values, unknown.to(values.dtype)], dim=1)))
        return torch.cat([features, felt], dim=1)


def build_encoder(config: EncoderConfig, proprio_dim: int = 0) -> ConvEncoder | ViTEncoder | MultiModalEncoder:
    one = ConvEncoder(config) if config.kind == "conv" else ViTEncoder(config)
    if config.num_views == 1 and not proprio_dim:
        return one
    return MultiModalEncoder(one, config.num_views, proprio_dim)


def build_projector(num_features: int, hidden: int, embed_dim: int, activation: str = "relu") -> nn.Sequential:
    """Returns what maps features (N, F) to embeddings (N, D)."""
    return nn.Sequential(
        nn.Linear(num_features, hidden, bias=False),
        BatchNorm(hidden),
        nn.GELU() if activation == "gelu" else nn.ReLU(inplace=True),
        nn.Linear(hidden, embed_dim),
    )
