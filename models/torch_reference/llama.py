"""Decoders with rotary positions, grouped queries and gated feed-forward layers: Llama, and one with experts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphprune.models.reference.llama import TINY, LlamaSizes
from graphprune.models.torch_reference.blocks import RMSNorm, merge_heads, repeat, seeded, split_heads
from graphprune.models.torch_reference.cnn import Example
from graphprune.models.torch_reference.recurrent import tokens

__all__ = ["Llama", "llama", "mixture_of_experts"]


class GatedFeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, c] -> [n, t, c]."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.heads, self.groups = sizes.heads, sizes.groups
        wide, narrow = sizes.heads * sizes.head_width, sizes.groups * sizes.head_width
        self.q = nn.Linear(sizes.hidden, wide, bias=False)
        self.k = nn.Linear(sizes.hidden, narrow, bias=False)
        self.v = nn.Linear(sizes.hidden, narrow, bias=False)
        self.o = nn.Linear(wide, sizes.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[n, t, c] and tables [t, width] -> [n, t, c]."""
        q = rotate(split_heads(self.q(x), self.heads), cos, sin)
        k = rotate(split_heads(self.k(x), self.groups), cos, sin)
        times = self.heads // self.groups
        k, v = repeat(k, times), repeat(split_heads(self.v(x), self.groups), times)
        return self.o(merge_heads(functional.scaled_dot_product_attention(q, k, v, is_causal=True)))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions over the halves of the last axis."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class LlamaLayer(nn.Module):
    """Attention and a gated feed-forward layer, each normalised before and added after."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(sizes.hidden), Attention(sizes)
        self.norm2, self.feed = RMSNorm(sizes.hidden), GatedFeedForward(sizes.hidden, sizes.inner)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[n, t, c] and tables [t, width] -> [n, t, c]."""
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.feed(self.norm2(x))


class Llama(nn.Module):
    """A Llama-like decoder (Touvron et al. 2023)."""

    def __init__(self, sizes: LlamaSizes, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(sizes.vocabulary, sizes.hidden)
        width = sizes.head_width
        angle = torch.outer(torch.arange(sizes.longest), 10000.0 ** (-torch.arange(0, width, 2) / width))
        angle = torch.cat([angle, angle], 1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.layers = nn.ModuleList(LlamaLayer(sizes) for _ in range(layers))
        self.norm = RMSNorm(sizes.hidden)
        self.head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[n, t] -> [n, t, vocabulary]."""
        x = self.embed(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def llama(*, tiny: bool = False, sizes: LlamaSizes | None = None, depth: int | None = None, seed: int = 0) -> Example:
    """A Llama-like decoder; ``depth`` overrides the number of layers."""
    sizes = sizes or (TINY if tiny else LlamaSizes())
    return seeded(Llama(sizes, depth or sizes.layers), seed), (tokens(sizes.vocabulary, seed),)


class Experts(nn.Module):
    """The two best experts of a router for every token, weighed and summed."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(GatedFeedForward(width, 2 * width) for _ in range(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, c] -> [n, t, c]."""
        y = self.norm(x)
        logits = self.router(y)
        values, places = logits.topk(2, -1)
        gates = torch.zeros_like(logits).scatter(-1, places, values.softmax(-1))
        for gate, expert in zip(gates.split(1, -1), self.experts, strict=True):
            x = x + gate * expert(y)
        return x


class MixtureOfExperts(nn.Module):
    """Token-wise layers of experts between an embedding and a head."""

    def __init__(self, vocabulary: int, width: int, depth: int, experts: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Experts(width, experts) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[n, t] -> [n, t, vocabulary]."""
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def mixture_of_experts(
    *, tiny: bool = False, width: int | None = None, experts: int | None = None, seed: int = 0
) -> Example:
    """Token-wise layers of experts."""
    vocabulary, depth = (50, 1) if tiny else (8000, 4)
    module = MixtureOfExperts(vocabulary, width or (12 if tiny else 256), depth, experts or (4 if tiny else 8))
    return seeded(module, seed), (tokens(vocabulary, seed),)
