"""The dynamics: a causal transformer over embeddings, conditioned on actions through AdaLN-zero.

Notable: token t holds z_t, its action modulates every layer (adaptive LayerNorm, gates zero at the start, after
DiT, arXiv 2212.09748), and its output is z_t + Δ, so an untrained predictor says that nothing moves. Keys and
values are kept in a cache, so a rollout feeds one new token per step instead of the whole window.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_mpc.errors import UserError
from jepa_mpc.settings import Range
from jepa_mpc.world_model.model.batchnorm import BatchNorm
from jepa_mpc.world_model.model.encoder import Depth, Size


@dataclass(frozen=True)
class PredictorConfig:
    kind: Literal["residual", "lewm"] = "residual"
    """lewm: LeWorldModel's own, in `lewm_predictor.py`."""
    width: Size = 128
    depth: Depth = 2
    num_heads: Size = 4
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    max_len: Size = 8
    """Longest sequence of tokens: history plus horizon, less one. lewm: of any length, for its window slides."""
    window: Size = 3
    """lewm: frames that a prediction sees."""
    head_dim: Size | None = None
    """Of an attention head; width / num_heads unless given."""
    mlp_width: Size | None = None
    """Four times the width unless given."""
    projector_hidden: Size | None = None
    """LeWorldModel's predictor ends, as its encoder does, in an MLP with BatchNorm; a linear layer unless given."""

    @property
    def inner(self) -> int:
        """Returns the width of all heads together."""
        if self.head_dim is None and self.width % self.num_heads:
            raise UserError(f"predictor.width {self.width} must be a multiple of predictor.num_heads {self.num_heads}")
        return self.num_heads * (self.head_dim or self.width // self.num_heads)


# Per layer, what the actions do to it: shift, scale and gate of attention and MLP, side by side (B, T, 6 W).
Modulation = tuple[Tensor, ...]


class Cache:
    """Every layer's keys and values (B, heads, L, head dim) of the L tokens so far, in float32.

    Without gradients they lie in room for `capacity` tokens, filled in place: growing them by concatenation would
    copy all of it at every step.
    """

    def __init__(self, num_layers: int, capacity: int):
        self.length, self.capacity = 0, capacity
        self._parts: list[list[Tensor | None]] = [[None] * num_layers, [None] * num_layers]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new tokens' key and value to a layer; returns all of its keys and values."""
        stop, whole = self.length + key.shape[2], []
        for part, new in zip(self._parts, (key, value), strict=True):
            old = part[layer]
            if torch.is_grad_enabled():
                part[layer] = new.float() if old is None else torch.cat([old, new.float()], dim=2)
            else:
                if old is None:
                    room = (*new.shape[:2], self.capacity, new.shape[3])
                    old = part[layer] = new.new_empty(room, dtype=torch.float32)
                old[:, :, self.length : stop] = new
            whole.append(cast(Tensor, part[layer])[:, :, :stop])
        return whole[0], whole[1]

    def repeat(self, times: int) -> "Cache":
        """Returns the same for `times` copies of every row of the batch, one after another."""
        copy = Cache(len(self._parts[0]), self.capacity)
        for layer, (key, value) in enumerate(zip(*self._parts, strict=True)):
            if key is not None and value is not None:
                filled = (part[:, :, : self.length].repeat_interleave(times, dim=0) for part in (key, value))
                copy.extend(layer, *filled)
        copy.length = self.length
        return copy


class AdaLNBlock(nn.Module):
    """Pre-norm attention and MLP whose shift, scale and gate come from actions."""

    def __init__(self, config: PredictorConfig):
        super().__init__()
        width = config.width
        self.num_heads, self.dropout = config.num_heads, config.dropout
        inner, mlp_width = config.inner, config.mlp_width or 4 * width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(mlp_width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, modulation: Tensor, cache: Cache, layer: int) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1, cache, layer)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def _attend(self, x: Tensor, cache: Cache, layer: int) -> Tensor:
        B, T, _ = x.shape
        query, key, value = (
            part.view(B, T, self.num_heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        key, value = cache.extend(layer, key, value)
        length, mask = key.shape[2], None
        if T > 1:  # a new token sees the cache, itself, and the new ones before it
            mask = torch.ones(T, length, dtype=torch.bool, device=x.device).tril(length - T)
        # In float32 also where the products are bfloat16: attention to few tokens is slow in half precision.
        attended = F.scaled_dot_product_attention(
            query.float(), key, value, mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(attended.transpose(1, 2).reshape(B, T, -1).to(x.dtype))


class TokenBatchNorm(BatchNorm):
    """BatchNorm over all tokens (..., W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view(x.shape)


class Predictor(nn.Module):
    """Next embeddings from embeddings and the action blocks taken at them."""

    def __init__(self, config: PredictorConfig, embed_dim: int, action_dim: int):
        super().__init__()
        width = config.width
        self.max_len = config.max_len
        self.action_encoder = nn.Sequential(nn.Linear(action_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.input = nn.Linear(embed_dim, width)
        # In place: on the meta device, a product would import PyTorch's compiler.
        self.position = nn.Parameter(torch.randn(config.max_len, width).mul_(0.02))
        self.blocks = nn.ModuleList(AdaLNBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        last = nn.Linear(config.projector_hidden or width, embed_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.output: nn.Module = last
        if config.projector_hidden:
            hidden = nn.Linear(width, config.projector_hidden)
            self.output = nn.Sequential(hidden, TokenBatchNorm(config.projector_hidden), nn.GELU(), last)

    def condition(self, actions: Tensor) -> Modulation:
        """Returns what actions (B, T, A) do to each layer. It does not depend on z, so a rollout computes it once."""
        condition = self.action_encoder(actions.to(self.position.dtype))
        return tuple(cast(AdaLNBlock, block).modulation(condition) for block in self.blocks)

    def new_cache(self, capacity: int | None = None) -> Cache:
        """Returns an empty cache for `capacity` tokens; `max_len` unless given."""
        return Cache(len(self.blocks), capacity or self.max_len)

    def forward(self, z: Tensor, modulation: Modulation, cache: Cache | None = None) -> Tensor:
        """Maps z (B, T, D), under their actions' modulation, to predictions (B, T, D).

        The tokens attend to those in `cache` too, and are added to it.
        """
        cache = cache or self.new_cache()
        stop = cache.length + z.shape[1]
        if stop > self.max_len:
            raise UserError(f"{stop} tokens exceed the predictor's max_len {self.max_len}; shorten history or horizon")
        x = self.input(z.to(self.position.dtype)) + self.position[cache.length : stop]
        for layer, block in enumerate(self.blocks):
            x = block(x, modulation[layer], cache, layer)
        cache.length = stop
        return z + self.output(self.norm(x))
