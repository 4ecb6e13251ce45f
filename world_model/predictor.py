"""The dynamics: a causal transformer over embeddings, conditioned on actions through AdaLN-zero.

Notable: token t holds z_t, its action modulates every layer (adaptive LayerNorm, gates zero at the start, after
DiT, arXiv 2212.09748), and its output is z_t + Δ, so an untrained predictor says that nothing moves. Keys and
values are returned as a cache, so a rollout feeds one new token per step instead of the whole window.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PredictorConfig:
    width: int = 128
    depth: int = 2
    num_heads: int = 4
    dropout: float = 0.0
    max_len: int = 8
    """Longest sequence of tokens: history plus horizon, less one."""


class KeyValue(NamedTuple):
    """One layer's attention keys and values, each (B, heads, L, head dim)."""

    key: Tensor
    value: Tensor


Cache = tuple[KeyValue, ...]


class AdaLNBlock(nn.Module):
    """Pre-norm attention and MLP whose shift, scale and gate come from the condition (B, T, W)."""

    def __init__(self, config: PredictorConfig):
        super().__init__()
        width = config.width
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        attended, cache = self._attend(self.norm1(x) * (1 + scale1) + shift1, past)
        x = x + gate1 * attended
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), cache

    def _attend(self, x: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        B, T, W = x.shape
        query, key, value = (
            part.view(B, T, self.num_heads, W // self.num_heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        if past is not None:
            key, value = torch.cat([past.key, key], dim=2), torch.cat([past.value, value], dim=2)
        length = key.shape[2]
        mask = None
        if T > 1:  # a new token sees the cache, itself, and the new ones before it
            mask = torch.ones(T, length, dtype=torch.bool, device=x.device).tril(length - T)
        attended = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(attended.transpose(1, 2).reshape(B, T, W)), KeyValue(key, value)


class Predictor(nn.Module):
    """Next embeddings from embeddings and the action blocks taken at them."""

    def __init__(self, config: PredictorConfig, embed_dim: int, action_dim: int):
        super().__init__()
        width = config.width
        self.max_len = config.max_len
        self.action_encoder = nn.Sequential(nn.Linear(action_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.input = nn.Linear(embed_dim, width)
        self.position = nn.Parameter(torch.randn(config.max_len, width) * 0.02)
        self.blocks = nn.ModuleList(AdaLNBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, embed_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, z: Tensor, actions: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """z (B, T, D) and actions (B, T, A), after `past` tokens, to predictions (B, T, D) and the longer cache."""
        start = 0 if past is None else past[0].key.shape[2]
        stop = start + z.shape[1]
        if stop > self.max_len:
            raise ValueError(f"{stop} tokens exceed the predictor's max_len {self.max_len}; shorten history or horizon")
        x = self.input(z) + self.position[start:stop]
        condition = self.action_encoder(actions)
        cache = []
        for index, block in enumerate(self.blocks):
            x, layer_cache = block(x, condition, None if past is None else past[index])
            cache.append(layer_cache)
        return z + self.output(self.norm(x)), tuple(cache)
