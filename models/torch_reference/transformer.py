"""Encoders and a decoder with learned positions: ViT, BERT, GPT-2."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphprune.models.torch_reference.blocks import FeedForward, merge_heads, seeded, split_heads
from graphprune.models.torch_reference.cnn import Example, images
from graphprune.models.torch_reference.recurrent import tokens

__all__ = ["bert", "gpt2", "vit"]


class FusedAttention(nn.Module):
    """Self-attention whose projection is viewed as [3, heads, width] and taken apart by position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, c] -> [n, t, c]."""
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(merge_heads(functional.scaled_dot_product_attention(q, k, v)))


class VitLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), FusedAttention(width, heads)
        self.norm2, self.feed = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, c] -> [n, t, c]."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Vit(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, depth: int, heads: int, size: int, patch: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.layers = nn.ModuleList(VitLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, size, size] -> [n, classes]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def vit(
    *, tiny: bool = False, width: int | None = None, depth: int | None = None, classes: int = 1000, seed: int = 0
) -> Example:
    """A vision transformer, ViT-S/16 by default; queries, keys and values fused."""
    heads, size, patch = (3, 16, 4) if tiny else (6, 224, 16)
    module = Vit(width or (24 if tiny else 384), depth or (2 if tiny else 12), heads, size, patch, classes)
    return seeded(module, seed), images(size, seed)


class BertLayer(nn.Module):
    """Attention and feed-forward, each added and then normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.feed, self.norm2 = nn.LayerNorm(width), FeedForward(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[n, t, c] and what is added to the logits, [n, 1, 1, t] -> [n, t, c]."""
        q, k, v = (split_heads(one(x), self.heads) for one in (self.query, self.key, self.value))
        y = merge_heads(functional.scaled_dot_product_attention(q, k, v, bias))
        x = self.norm1(self.out(y) + x)
        return self.norm2(self.feed(x) + x)


class Bert(nn.Module):
    """A BERT encoder (Devlin et al. 2019) with a mask and a pooled output."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, longest: int) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(vocabulary, width), nn.Embedding(2, width)
        self.positions = nn.Embedding(longest, width)
        self.register_buffer("places", torch.arange(longest)[None], persistent=False)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))
        self.pooler = nn.Linear(width, width)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, t] three times -> [n, t, c] and [n, c]."""
        x = self.words(ids) + self.kinds(kinds) + self.positions(self.places[:, : ids.shape[1]])
        x = self.norm(x)
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, bias)
        return x, torch.tanh(self.pooler(x[:, 0]))


def bert(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> Example:
    """A BERT encoder."""
    heads, vocabulary, longest = (3, 50, 32) if tiny else (12, 30522, 512)
    module = Bert(vocabulary, width or (24 if tiny else 768), depth or (2 if tiny else 12), heads, longest)
    ids = tokens(vocabulary, seed)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    return seeded(module, seed), (ids, mask, ids % 2)


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is [in, out]."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, in] -> [n, t, out]."""
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(x.shape[0], x.shape[1], self.weight.shape[1])


class Gpt2Layer(nn.Module):
    """Causal attention from a fused projection, and a feed-forward layer with GPT-2's Gelu."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), Conv1D(width, 3 * width), Conv1D(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), Conv1D(width, 4 * width), Conv1D(4 * width, width)

    def forward(self, x: torch.Tensor, causal: torch.Tensor) -> torch.Tensor:
        """[n, t, c] and a mask [1, 1, t, t], True where attention is allowed -> [n, t, c]."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).split(x.shape[2], 2))
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        share = torch.where(causal, logits, -1e4).softmax(-1)
        x = self.out(merge_heads(share @ v)) + x
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """GPT-2 (Radford et al. 2019) with tied output weights."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, longest: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(1, longest, width))
        self.register_buffer("causal", torch.ones(1, 1, longest, longest, dtype=torch.bool).tril(), persistent=False)
        self.layers = nn.ModuleList(Gpt2Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[n, t] -> [n, t, vocabulary]."""
        length = ids.shape[1]
        x = self.words(ids) + self.positions[:, :length]
        for layer in self.layers:
            x = layer(x, self.causal[:, :, :length, :length])
        return self.head(self.norm(x))


def gpt2(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> Example:
    """GPT-2: fused Conv1D projections, tied output weights."""
    heads, vocabulary, longest = (3, 50, 32) if tiny else (12, 50257, 1024)
    module = Gpt2(vocabulary, width or (24 if tiny else 768), depth or (2 if tiny else 12), heads, longest)
    return seeded(module, seed), (tokens(vocabulary, seed),)
