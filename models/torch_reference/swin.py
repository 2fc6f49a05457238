"""Swin transformer: shifted windows, relative position bias, patch merging (Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from graphprune.models.torch_reference.blocks import FeedForward, seeded
from graphprune.models.torch_reference.cnn import Example, images

__all__ = ["swin_t"]


class WindowAttention(nn.Module):
    """Attend within windows of ``window`` by ``window``, the grid shifted by ``shift``."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("places", relative_places(window), persistent=False)
        if shift:
            self.register_buffer("hidden", shift_mask(side, window, shift)[:, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, h, w, c] -> [n, h, w, c]."""
        n, height, width, channels = x.shape
        window, rows, columns = self.window, height // self.window, width // self.window
        area, count = window * window, rows * columns
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, rows, window, columns, window, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n * count, area, channels)
        qkv = self.qkv(x).view(n * count, area, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        logits = logits + self.table[self.places].view(area, area, self.heads).permute(2, 0, 1)[None]
        if self.shift:
            spread = logits.view(n, count, self.heads, area, area) + self.hidden
            logits = spread.view(n * count, self.heads, area, area)
        x = (logits.softmax(-1) @ v).transpose(1, 2).reshape(n * count, area, channels)
        x = self.out(x).view(n, rows, columns, window, window, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, height, width, channels)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


def relative_places(window: int) -> torch.Tensor:
    """For each pair of positions of a window the row of the table of biases, flat."""
    steps = torch.arange(window)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None, :] + window - 1
    return (offsets[0] * (2 * window - 1) + offsets[1]).flatten()


def shift_mask(side: int, window: int, shift: int) -> torch.Tensor:
    """Return [windows, area, area]: -100 between positions that the shift brought together from opposite edges."""
    regions = torch.zeros(side, side)
    bounds = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for row, vertical in enumerate(bounds):
        for column, horizontal in enumerate(bounds):
            regions[vertical, horizontal] = 3 * row + column
    grid = regions.view(side // window, window, side // window, window)
    flat = grid.transpose(1, 2).reshape(-1, window * window)
    return (flat[:, None] != flat[:, :, None]) * -100.0


class SwinLayer(nn.Module):
    """Window attention and feed-forward, each normalised before and added after."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), WindowAttention(width, heads, side, window, shift)
        self.norm2, self.feed = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, h, w, c] -> [n, h, w, c]."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class MergePatches(nn.Module):
    """Halve height and width: four strided slices side by side, normalised, projected to twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, h, w, c] -> [n, h / 2, w / 2, 2 * c]."""
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """A Swin transformer; activations are [n, h, w, c]."""

    def __init__(
        self, width: int, depths: Sequence[int], heads: Sequence[int], size: int, patch: int, window: int, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)
        side = size // patch
        layers: list[nn.Module] = []
        for stage, depth in enumerate(depths):
            for layer in range(depth):
                shift = window // 2 if layer % 2 and side > window else 0
                layers.append(SwinLayer(width, heads[stage], side, window, shift))
            if stage + 1 < len(depths):
                layers.append(MergePatches(width))
                width, side = 2 * width, side // 2
        self.layers = nn.Sequential(*layers)
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, size, size] -> [n, classes]."""
        x = self.layers(self.norm(self.patches(x).permute(0, 2, 3, 1)))
        return self.head(self.last(x).mean((1, 2)))


def swin_t(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """Swin-T."""
    if tiny:
        module = Swin(width or 12, (2, 2), (2, 4), size := 32, 4, 2, classes)
    else:
        module = Swin(width or 96, (2, 2, 6, 2), (3, 6, 12, 24), size := 224, 4, 7, classes)
    return seeded(module, seed), images(size, seed)
