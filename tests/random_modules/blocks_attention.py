"""Attention, in people's own code and in PyTorch's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.blocks_tokens import norm
from random_modules.choice import TOKENS, Choice, Shape, block

__all__: list[str] = []


class Attend(nn.Module):
    """Scaled dot-product attention over [n, h, t, d], as people write it."""

    def __init__(self, t: Choice, width: int) -> None:
        super().__init__()
        self.form = t.pick(["sdpa", "sdpa", "after", "before", "computed", "scale"])
        self.causal = t.chance(0.3)
        self.scale = width**-0.5
        self.drop = nn.Dropout(t.pick([0.0, 0.1]))
        self.gqa = False

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.form == "sdpa":
            rate = self.drop.p if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=self.causal, enable_gqa=self.gqa)
        if self.form == "scale":
            mask = self.mask(q, k) if self.causal else None
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, enable_gqa=self.gqa)
        if self.form == "before":
            q = q * self.scale
        logits = q @ k.transpose(-2, -1)
        if self.form == "after":
            logits = logits * self.scale
        if self.form == "computed":
            logits = logits / math.sqrt(q.shape[-1])
        if self.causal:
            logits = logits.masked_fill(~self.mask(q, k), float("-inf"))
        y: Tensor = self.drop(logits.softmax(-1)) @ v
        return y

    @staticmethod
    def mask(q: Tensor, k: Tensor) -> Tensor:
        """Hides the future."""
        return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()


def rotate(x: Tensor, interleaved: bool) -> Tensor:
    """Rotary positions over [n, h, t, d], over halves or over neighbours."""
    half, length = x.shape[-1] // 2, x.shape[-2]
    angle = torch.arange(length, dtype=x.dtype)[:, None] * 0.5 ** torch.arange(half, dtype=x.dtype)
    if interleaved:
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1).flatten(-2)
    angle = torch.cat((angle, angle), -1)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat((-b, a), -1) * angle.sin()


@block(TOKENS, weight=3)
class Attention(nn.Module):
    """Separate projections, grouped keys and values at times, rotary positions at times."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        self.heads, self.pairs, self.head_dim = t.pick(
            [(2, 2, 4), (3, 3, 2), (4, 2, 2), (4, 1, 4), (6, 3, 2), (2, 2, 3)]
        )
        self.value = self.head_dim if t.chance(0.8) else t.pick([2, 3, 5])
        self.q = nn.Linear(width, self.heads * self.head_dim, bias=t.chance(0.5))
        self.k = nn.Linear(width, self.pairs * self.head_dim, bias=t.chance(0.5))
        self.v = nn.Linear(width, self.pairs * self.value, bias=t.chance(0.5))
        self.o = nn.Linear(self.heads * self.value, width, bias=t.chance(0.5))
        self.attend, self.norm = Attend(t, self.head_dim), norm(t, width)
        self.rotary = self.head_dim % 2 == 0 and t.chance(0.4)
        self.interleaved = t.chance(0.5)
        self.repeat = t.pick(["interleave", "expand", "native"])
        self.attend.gqa = self.repeat == "native" and self.heads != self.pairs
        t.need(not self.attend.gqa or self.attend.form in ("sdpa", "scale"))
        self.normed = nn.RMSNorm(self.head_dim, eps=1e-5) if t.chance(0.2) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        y = self.norm(x)
        q = self.normed(self.q(y).view(n, length, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k(y).view(n, length, -1, self.head_dim).transpose(1, 2)
        v = self.v(y).view(n, length, self.pairs, -1).transpose(1, 2)
        if self.rotary:
            q, k = (rotate(each, self.interleaved) for each in (q, k))
        if self.heads != self.pairs and not self.attend.gqa:
            times = self.heads // self.pairs
            if self.repeat == "interleave":
                k, v = (each.repeat_interleave(times, 1) for each in (k, v))
            else:
                k, v = (
                    each[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, -1) for each in (k, v)
                )
        y = self.attend(q, k, v).transpose(1, 2).reshape(n, length, self.heads * self.value)
        z: Tensor = x + self.o(y)
        return z


@block(TOKENS, weight=2)
class Fused(nn.Module):
    """One projection for queries, keys and values, taken apart in one of the usual ways."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        self.heads, self.head_dim = t.pick([(2, 4), (3, 2), (2, 3), (3, 4)])
        self.inner = self.heads * self.head_dim
        self.qkv, self.proj = nn.Linear(width, 3 * self.inner, bias=t.chance(0.6)), nn.Linear(self.inner, width)
        self.attend, self.norm = Attend(t, self.head_dim), norm(t, width)
        self.form = t.pick(["stack", "chunk", "split", "interleaved", "slices", "slots"])

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(self.norm(x))
        if self.form == "stack":
            q, k, v = qkv.reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.form == "slots":
            slots = qkv.reshape(n, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = slots[0], slots[1], slots[2]
        elif self.form == "interleaved":
            q, k, v = qkv.view(n, length, self.heads, 3 * self.head_dim).transpose(1, 2).chunk(3, -1)
        else:
            if self.form == "chunk":
                parts = qkv.chunk(3, -1)
            elif self.form == "split":
                parts = qkv.split(self.inner, -1)
            else:
                parts = tuple(qkv[..., i * self.inner : (i + 1) * self.inner] for i in range(3))
            q, k, v = (part.view(n, length, self.heads, self.head_dim).transpose(1, 2) for part in parts)
        y = self.attend(q, k, v).transpose(1, 2).reshape(n, length, -1)
        z: Tensor = x + self.proj(y)
        return z


@block(TOKENS)
class Library(nn.Module):
    """``nn.MultiheadAttention``: self-attention or to learned queries, its weights returned at times."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        heads = t.pick([each for each in (1, 2, 3, 4) if width % each == 0])
        self.first = t.chance(0.7)
        self.weights = t.chance(0.3)
        self.attention = nn.MultiheadAttention(
            width, heads, dropout=t.pick([0.0, 0.1]), bias=t.chance(0.7), batch_first=self.first
        )
        self.norm = norm(t, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if not self.first:
            y = y.transpose(0, 1)
        y, _ = self.attention(y, y, y, need_weights=self.weights)
        return x + (y if self.first else y.transpose(0, 1))


@block(TOKENS, weight=0.8)
class Encoder(nn.Module):
    """``nn.TransformerEncoderLayer``, one or two in a row."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        heads = t.pick([each for each in (1, 2, 3, 4) if width % each == 0])
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            t.width(),
            dropout=t.pick([0.0, 0.1]),
            activation=t.pick(["relu", "gelu"]),
            norm_first=t.chance(0.5),
            batch_first=True,
        )
        count = t.pick([1, 1, 2])
        self.encoder = layer if count == 1 else nn.TransformerEncoder(layer, count, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder(x)
        return y
