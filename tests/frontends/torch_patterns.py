"""Patterns of well-known networks as small modules, each between layers that show what is coupled.

Widths are told apart by their numbers: what is together has one size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PATTERNS", "Pattern"]


@dataclass(frozen=True)
class Pattern:
    """A module and the shape of its input; the first dimension is a batch that may be symbolic."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    integers: int = 0


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = Conv(width, hidden, 3), Conv(hidden, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.up(self.down(x))
        return y


class C2f(nn.Module):
    """YOLOv8's block: halves of a convolution, the last one processed again and again, all concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 7)
        self.first = Conv(7, 2 * 6)
        self.blocks = nn.ModuleList(Bottleneck(6, 5) for _ in range(2))
        self.last = Conv(4 * 6, 11)
        self.head = nn.Conv2d(11, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(self.stem(x)).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        y: Tensor = self.head(self.last(torch.cat(parts, 1)))
        return y


class C3k(nn.Module):
    """A cross-stage block: two branches, one of them processed, concatenated."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.left, self.right = Conv(width, hidden), Conv(width, hidden)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, hidden) for _ in range(2)))
        self.last = Conv(2 * hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat((self.blocks(self.left(x)), self.right(x)), 1))
        return y


class C3k2(nn.Module):
    """YOLO11's block: C2f with cross-stage blocks inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Conv(3, 2 * 6), Conv(3 * 6, 11)
        self.inner = C3k(6, 4)
        self.head = nn.Conv2d(11, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).split((6, 6), 1))
        parts.append(self.inner(parts[-1]))
        y: Tensor = self.head(self.last(torch.cat(parts, 1)))
        return y


class Detect(nn.Module):
    """YOLO's head: boxes as distributions over distances (DFL) and classes, levels joined after a reshape."""

    bins = 8

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList((Conv(3, 10, 3, 2), Conv(10, 12, 3, 2)))
        self.boxes = nn.ModuleList(nn.Sequential(Conv(c, 7, 3), nn.Conv2d(7, 4 * self.bins, 1)) for c in (10, 12))
        self.classes = nn.ModuleList(
            nn.Sequential(Conv(c, c, 3, groups=c), Conv(c, 9), nn.Conv2d(9, 5, 1)) for c in (10, 12)
        )
        self.expect = nn.Conv2d(self.bins, 1, 1, bias=False)
        self.expect.weight.data = torch.arange(float(self.bins)).view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = []
        for stem in self.stems:
            x = stem(x)
            levels.append(x)
        found = [torch.cat((b(y), c(y)), 1) for y, b, c in zip(levels, self.boxes, self.classes, strict=True)]
        box, cls = torch.cat([y.view(y.shape[0], 4 * self.bins + 5, -1) for y in found], 2).split((4 * self.bins, 5), 1)
        b, _, anchors = box.shape
        box = self.expect(box.view(b, 4, self.bins, anchors).transpose(2, 1).softmax(1)).view(b, 4, anchors)
        low, high = box.chunk(2, 1)
        return torch.cat(((low + high) / 2, high - low), 1), cls.sigmoid()


class ChannelShuffle(nn.Module):
    """ShuffleNet's unit: halves, one of them processed, concatenated and shuffled by views or by the operator."""

    def __init__(self, native: bool) -> None:
        super().__init__()
        self.stem = Conv(3, 12)
        self.branch = nn.Sequential(Conv(6, 5), Conv(5, 5, 3, groups=5), Conv(5, 6))
        self.head = nn.Conv2d(12, 2, 1)
        self.native = native

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat((left, self.branch(right)), 1)
        if self.native:
            x = F.channel_shuffle(x, 2)
        else:
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        y: Tensor = self.head(x)
        return y


class GroupedShuffle(nn.Module):
    """ShuffleNet v1: grouped convolutions around a shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 1, groups=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.last(F.channel_shuffle(self.first(x), 3)))
        return y


class Swin(nn.Module):
    """Shifted windows with a table of relative position biases, around a residual sum."""

    size, heads, dim = 2, 3, 12

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, self.dim, 2, 2)
        self.norm = nn.LayerNorm(self.dim)
        self.qkv, self.proj = nn.Linear(self.dim, 3 * self.dim), nn.Linear(self.dim, self.dim)
        self.table = nn.Parameter(torch.randn((2 * self.size - 1) ** 2, self.heads))
        points = torch.stack(torch.meshgrid(torch.arange(self.size), torch.arange(self.size), indexing="ij")).flatten(1)
        offset = points[:, :, None] - points[:, None] + self.size - 1
        self.register_buffer("index", offset[0] * (2 * self.size - 1) + offset[1])
        self.head = nn.Linear(self.dim, 5)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
        y: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        s = self.size
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self.attend(y).view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        out: Tensor = self.head(x.mean((1, 2)))
        return out


class FusedAttention(nn.Module):
    """Attention with one projection for queries, keys and values: by a reshape, or by three chunks."""

    heads, dim = 3, 12

    def __init__(self, chunked: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 7)
        self.qkv, self.proj = nn.Linear(7, 3 * self.dim), nn.Linear(self.dim, 7)
        self.head = nn.Linear(7, 2)
        self.chunked = chunked

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _ = x.shape
        if self.chunked:
            parts = self.qkv(x).chunk(3, -1)
            q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in parts)
        else:
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.dim)
        out: Tensor = self.head(x + self.proj(y))
        return out


class BatchedHeads(nn.Module):
    """Attention whose heads are merged with the batch, sequence first or batch first."""

    heads, dim = 3, 12

    def __init__(self, sequence_first: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(5, self.dim) for _ in range(3))
        self.o = nn.Linear(self.dim, 2)
        self.sequence_first = sequence_first

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        h, d = self.heads, self.dim // self.heads
        if self.sequence_first:
            x = x.transpose(0, 1)
            q, k, v = (layer(x).contiguous().view(n, b * h, d).transpose(0, 1) for layer in (self.q, self.k, self.v))
        else:
            q, k, v = (
                layer(x).view(b, n, h, d).transpose(1, 2).reshape(b * h, n, d) for layer in (self.q, self.k, self.v)
            )
        y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        if self.sequence_first:
            out: Tensor = self.o(y.transpose(0, 1).contiguous().view(n, b, self.dim))
            return out.transpose(0, 1)
        out = self.o(y.view(b, h, n, d).transpose(1, 2).reshape(b, n, self.dim))
        return out


class Normed(nn.Module):
    """GroupNorm between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.first(x)).relu())
        return y


class SuperResolution(nn.Module):
    """Sub-pixel convolution up, its inverse down."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.mid = nn.Conv2d(3, 7, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(7, 5 * 4, 1)
        self.down, self.last = nn.PixelUnshuffle(2), nn.Conv2d(20, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.down(self.up(self.mid(self.first(x))).relu()))
        return y


class SqueezeExcite(nn.Module):
    """A gate for each channel, made from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Conv(3, 12), nn.Conv2d(12, 2, 1)
        self.down, self.up = nn.Linear(12, 5), nn.Linear(5, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c = x.shape[:2]
        gate = self.up(self.down(F.adaptive_avg_pool2d(x, 1).view(b, c)).relu()).sigmoid().view(b, c, 1, 1)
        y: Tensor = self.last(x * gate.expand_as(x))
        return y


class Dense(nn.Module):
    """DenseNet: every layer reads all features before it, and a transition reads them all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 5, 3, padding=1)) for c in (6, 11)
        )
        self.last = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        y: Tensor = self.last(torch.cat(features, 1))
        return y


class Inception(nn.Module):
    """Branches of different widths and a pooled one, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 7)
        self.one, self.three = Conv(7, 4), nn.Sequential(Conv(7, 3), Conv(3, 5, 3))
        self.pooled, self.last = Conv(7, 6), nn.Conv2d(15, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.pooled(F.avg_pool2d(x, 3, 1, 1))
        y: Tensor = self.last(torch.cat((self.one(x), self.three(x), pooled), 1))
        return y


class PaddedShortcut(nn.Module):
    """ResNet's option A: a shortcut of every other position, with channels of zeros before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 6)
        self.branch = nn.Sequential(Conv(6, 10, 3, 2), Conv(10, 10, 3))
        self.last = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.last((self.branch(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))).relu())
        return y


class Focus(nn.Module):
    """YOLOv5's stem: four images of every other row and column as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(3, 5, 3, padding=1), Conv(20, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        y: Tensor = self.last(self.conv(torch.cat(parts, 1)))
        return y


def rotated_half(x: Tensor) -> Tensor:
    """Halves of the last dimension change places, one negated."""
    return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)


def rotated_pairs(x: Tensor) -> Tensor:
    """Neighbours in the last dimension change places, one negated."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


class Rotary(nn.Module):
    """Attention with rotary positions, and with fewer heads of keys and values, repeated in one way or another."""

    heads, groups, width = 4, 2, 6

    def __init__(self, interleaved: bool, repeated: bool) -> None:
        super().__init__()
        self.q = nn.Linear(7, self.heads * self.width, bias=False)
        self.k = nn.Linear(7, self.groups * self.width, bias=False)
        self.v = nn.Linear(7, self.groups * self.width, bias=False)
        self.o = nn.Linear(self.heads * self.width, 7, bias=False)
        self.embed, self.head = nn.Linear(3, 7), nn.Linear(7, 2)
        self.rotate = rotated_pairs if interleaved else rotated_half
        self.repeated = repeated
        angle = torch.arange(5.0)[:, None] * torch.rand(self.width // 2)
        angle = angle.repeat_interleave(2, -1) if interleaved else torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def more(self, x: Tensor) -> Tensor:
        times = self.heads // self.groups
        if self.repeated:
            return x.repeat_interleave(times, 1)
        b, g, n, d = x.shape
        return x[:, :, None].expand(b, g, times, n, d).reshape(b, g * times, n, d)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = (layer(x).view(b, n, self.groups, -1).transpose(1, 2) for layer in (self.k, self.v))
        q, k = (y * self.cos[:n] + self.rotate(y) * self.sin[:n] for y in (q, k))
        k, v = self.more(k), self.more(v)
        weights = (q @ k.transpose(-2, -1) * self.width**-0.5).softmax(-1)
        out: Tensor = self.head(x + self.o((weights @ v).transpose(1, 2).reshape(b, n, -1)))
        return out


class Tagger(nn.Module):
    """An LSTM in both directions under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 5)
        self.lstm, self.head = nn.LSTM(5, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(self.embed(x))[0])
        return y


class Gated(nn.Module):
    """A gate and a value out of one linear layer: halves by chunk, by the operator, by slices, or by pairs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(3, 7), nn.Linear(7, 2 * 6), nn.Linear(6, 2)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.embed(x))
        if self.kind == "glu":
            x = F.glu(x, -1)
        else:
            gate, value = {
                "chunk": lambda: x.chunk(2, -1),
                "slices": lambda: (x[..., :6], x[..., 6:]),
                "pairs": lambda: (x[..., ::2], x[..., 1::2]),
                "unflatten": lambda: x.unflatten(-1, (2, -1)).unbind(-2),
            }[self.kind]()
            x = F.silu(gate) * value
        y: Tensor = self.down(x)
        return y


class ClassToken(nn.Module):
    """A vision transformer's ends: patches flattened, a token put before them, positions added, the token read."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 10, 8))
        self.up, self.down, self.head = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.place
        x = x + self.down(F.gelu(self.up(x)))
        y: Tensor = self.head(x[:, 0])
        return y


class Merging(nn.Module):
    """Swin's patch merging: four neighbours as channels, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 5, 1), nn.LayerNorm(20), nn.Linear(20, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        x = torch.cat((x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]), -1)
        y: Tensor = self.head(self.last(self.norm(x)).flatten(1, 2))
        return y


class Unfolded(nn.Module):
    """A convolution by hand: patches as columns, and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Conv2d(3, 5, 1), nn.Linear(5 * 9, 6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        columns = F.unfold(self.first(x), 3, padding=1).transpose(1, 2)
        y: Tensor = self.last(self.weight(columns).transpose(1, 2).reshape(b, 6, h, w))
        return y


IMAGE = (2, 3, 8, 8)

PATTERNS: dict[str, Pattern] = {
    "C2f": Pattern(C2f, IMAGE),
    "C3k2": Pattern(C3k2, IMAGE),
    "detect": Pattern(Detect, (2, 3, 16, 16)),
    "channel shuffle": Pattern(lambda: ChannelShuffle(False), IMAGE),
    "native channel shuffle": Pattern(lambda: ChannelShuffle(True), IMAGE),
    "grouped shuffle": Pattern(GroupedShuffle, IMAGE),
    "swin": Pattern(Swin, IMAGE),
    "fused qkv": Pattern(lambda: FusedAttention(False), (2, 4, 5)),
    "fused qkv chunk": Pattern(lambda: FusedAttention(True), (2, 4, 5)),
    "heads in the batch": Pattern(lambda: BatchedHeads(False), (2, 4, 5)),
    "heads in the batch, sequence first": Pattern(lambda: BatchedHeads(True), (2, 4, 5)),
    "group norm": Pattern(Normed, IMAGE),
    "pixel shuffle": Pattern(SuperResolution, IMAGE),
    "squeeze excite": Pattern(SqueezeExcite, IMAGE),
    "dense": Pattern(Dense, IMAGE),
    "inception": Pattern(Inception, IMAGE),
    "option A": Pattern(PaddedShortcut, IMAGE),
    "focus": Pattern(Focus, IMAGE),
    "rotary half, repeat_interleave": Pattern(lambda: Rotary(False, True), (2, 5, 3)),
    "rotary pairs, expand": Pattern(lambda: Rotary(True, False), (2, 5, 3)),
    "lstm": Pattern(Tagger, (2, 4), integers=9),
    "glu": Pattern(lambda: Gated("glu"), (2, 3)),
    "gated chunk": Pattern(lambda: Gated("chunk"), (2, 3)),
    "gated slices": Pattern(lambda: Gated("slices"), (2, 3)),
    "gated pairs": Pattern(lambda: Gated("pairs"), (2, 3)),
    "gated unflatten": Pattern(lambda: Gated("unflatten"), (2, 3)),
    "class token": Pattern(ClassToken, (2, 3, 6, 6)),
    "patch merging": Pattern(Merging, IMAGE),
    "unfold": Pattern(Unfolded, IMAGE),
}
