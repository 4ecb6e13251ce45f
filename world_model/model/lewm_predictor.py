"""LeWorldModel's own predictor: a causal transformer over a sliding window of frames, conditioned through AdaLN-zero.

Notable, beside `predictor.py`: its output is the next embedding itself; LayerNorms with weights stand inside attention
and MLP, after the modulation; positions count within the window, so a rollout longer than it computes each window anew
and can keep no keys and values. It is here to train the published sizes and to run the authors' released weights;
equal to stable-worldmodel's module (`wm/lewm`, v0.1.1) to rounding. Source: arXiv 2603.19312.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.model.predictor import Modulation, PredictorConfig, TokenBatchNorm

ACTION_FEATURES = 10  # to which an action block is mixed down before it is embedded


class Window:
    """The last frames' embeddings (B, L, W) and modulations, of which new tokens see up to `size` with themselves."""

    def __init__(self, size: int, kept: tuple[Tensor, ...] = ()):
        self.size, self._kept = size, kept

    def extend(self, z: Tensor, modulation: Modulation) -> tuple[Tensor, Modulation]:
        """Returns the new tokens after those that they see."""
        seen: tuple[Tensor, ...] = (z, *modulation)
        if self._kept:
            seen = tuple(torch.cat(pair, dim=1) for pair in zip(self._kept, seen, strict=True))
        first = max(0, seen[0].shape[1] - self.size + 1)
        self._kept = tuple(each[:, first:] for each in seen)
        return seen[0], seen[1:]

    def repeat(self, times: int) -> "Window":
        """Returns the same for `times` copies of every row of the batch, one after another."""
        return Window(self.size, tuple(each.repeat_interleave(times, dim=0) for each in self._kept))


class LeWMBlock(nn.Module):
    """Attention and MLP whose shift, scale and gate come from actions, each with a LayerNorm of its own besides."""

    def __init__(self, config: PredictorConfig):
        super().__init__()
        width, dropout = config.width, config.dropout
        self.num_heads, self.dropout = config.num_heads, dropout
        inner, mlp_width = config.inner, config.mlp_width or 4 * width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def _attend(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        query, key, value = (
            part.view(B, T, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=T > 1)
        return self.out(attended.transpose(1, 2).reshape(B, T, -1))


class LeWMPredictor(nn.Module):
    """Next embeddings from embeddings and the action blocks taken at them; the surface of `Predictor`."""

    def __init__(self, config: PredictorConfig, embed_dim: int, action_dim: int):
        super().__init__()
        width = config.width
        if width != embed_dim:
            raise UserError(f"LeWorldModel's predictor is as wide as its embeddings; width {width} is not {embed_dim}")
        self.window = config.window
        self.action_encoder = nn.Sequential(
            nn.Linear(action_dim, ACTION_FEATURES),
            nn.Linear(ACTION_FEATURES, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )
        self.position = nn.Parameter(torch.randn(config.window, width))
        self.blocks = nn.ModuleList(LeWMBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        hidden = config.projector_hidden or 4 * width
        self.output = nn.Sequential(
            nn.Linear(width, hidden), TokenBatchNorm(hidden), nn.GELU(), nn.Linear(hidden, embed_dim)
        )

    def condition(self, actions: Tensor) -> Modulation:
        """Returns what actions (B, T, A) do to each layer."""
        condition = F.silu(self.action_encoder(actions.to(self.position.dtype)))
        return tuple(cast(LeWMBlock, block).modulation(condition) for block in self.blocks)

    def new_cache(self, capacity: int | None = None) -> Window:
        return Window(self.window)

    def forward(self, z: Tensor, modulation: Modulation, cache: Window | None = None) -> Tensor:
        """Maps z (B, T, D), under their actions' modulation, to predictions (B, T, D) of up to `window` frames."""
        T = z.shape[1]
        x, modulation = (cache or self.new_cache()).extend(z.to(self.position.dtype), modulation)
        past = x.shape[1] - T
        if x.shape[1] <= self.window:
            return self._predict(x, modulation)[:, past:].to(z.dtype)
        futures = []
        for stop in range(past + 1, past + T + 1):
            seen = slice(max(0, stop - self.window), stop)
            futures.append(self._predict(x[:, seen], tuple(layer[:, seen] for layer in modulation))[:, -1:])
        return torch.cat(futures, dim=1).to(z.dtype)

    def _predict(self, x: Tensor, modulation: Modulation) -> Tensor:
        x = x + self.position[: x.shape[1]]
        for block, layer in zip(self.blocks, modulation, strict=True):
            x = block(x, layer)
        return self.output(self.norm(x))
