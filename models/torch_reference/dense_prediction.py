"""Networks with an output per position: U-Net for masks, a YOLO-like detector for boxes."""

from __future__ import annotations

import torch
from torch import nn

from graphprune.models.torch_reference.blocks import ConvBn, seeded
from graphprune.models.torch_reference.cnn import Example, images

__all__ = ["unet", "yolo"]


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with transposed convolutions and concatenated skips."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [3, *widths[:-1]]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool2d(2, 2)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, 2) for low, high in steps)
        self.merge = nn.ModuleList(twice(2 * high, high) for _, high in steps)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, 2, h, w]."""
        skips = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.last(x)


def twice(inputs: int, out: int) -> nn.Module:
    """Two 3x3 convolutions."""
    return nn.Sequential(ConvBn(inputs, out, 3), ConvBn(out, out, 3))


def unet(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> Example:
    """A U-Net."""
    module = UNet(width or (4 if tiny else 64), depth or (2 if tiny else 4))
    return seeded(module, seed), images(16 if tiny else 256, seed)


def convolved(inputs: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    """Convolution, BatchNorm, SiLU."""
    return ConvBn(inputs, out, kernel, stride=stride, activation=nn.SiLU)


class C2f(nn.Module):
    """Split, transform one half ``count`` times, concatenate every stage."""

    def __init__(self, inputs: int, out: int, count: int, shortcut: bool) -> None:
        super().__init__()
        half = out // 2
        self.first = convolved(inputs, out, 1)
        self.steps = nn.ModuleList(
            nn.Sequential(convolved(half, half, 3), convolved(half, half, 3)) for _ in range(count)
        )
        self.last = convolved((2 + count) * half, out, 1)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, out, h, w]."""
        stages = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            y = step(stages[-1])
            stages.append(stages[-1] + y if self.shortcut else y)
        return self.last(torch.cat(stages, 1))


class PoolingPyramid(nn.Module):
    """Concatenate three successive 5x5 poolings."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first = convolved(inputs, inputs // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = convolved(inputs // 2 * 4, inputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, inputs, h, w]."""
        pyramid = [self.first(x)]
        for _ in range(3):
            pyramid.append(self.pool(pyramid[-1]))
        return self.last(torch.cat(pyramid, 1))


class Detect(nn.Module):
    """A box and a class branch per level, then distances decoded to boxes over all anchors."""

    def __init__(self, widths: list[int], classes: int, bins: int, size: int) -> None:
        super().__init__()
        self.bins = bins
        self.boxes = nn.ModuleList(branch(width, 4 * bins) for width in widths)
        self.scores = nn.ModuleList(branch(width, classes) for width in widths)
        self.expect = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.expect.weight.copy_(torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1))
        places, strides = [], []
        for stride in (8, 16, 32):
            steps = torch.arange(size // stride) + 0.5
            rows, columns = torch.meshgrid(steps, steps, indexing="ij")
            places.append(torch.stack([columns, rows]).flatten(1))
            strides.append(torch.full((1, len(steps) ** 2), float(stride)))
        self.register_buffer("anchors", torch.cat(places, 1)[None])
        self.register_buffer("strides", torch.cat(strides, 1)[None])

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Maps [n, c, h, w] -> [n, 4 + classes, anchors]."""
        box = torch.cat([one(x).flatten(2) for one, x in zip(self.boxes, levels, strict=True)], 2)
        score = torch.cat([one(x).flatten(2) for one, x in zip(self.scores, levels, strict=True)], 2)
        n, _, total = box.shape
        share = box.view(n, 4, self.bins, total).transpose(1, 2).softmax(1)
        low, high = self.expect(share).view(n, 4, total).chunk(2, 1)
        low, high = self.anchors - low, self.anchors + high
        return torch.cat([torch.cat([(low + high) / 2, high - low], 1) * self.strides, score.sigmoid()], 1)


def branch(width: int, out: int) -> nn.Module:
    """Two 3x3 convolutions and a projection."""
    inner = max(width, 8)
    return nn.Sequential(convolved(width, inner, 3), convolved(inner, inner, 3), nn.Conv2d(inner, out, 1))


class Yolo(nn.Module):
    """A YOLOv8-like detector: C2f blocks, pooling pyramid, two-way neck, decoupled head with box decoding."""

    def __init__(self, width: int, classes: int, bins: int, size: int, repeats: tuple[int, ...]) -> None:
        super().__init__()
        widths = [width * 2 ** (stage + 1) for stage in range(4)]
        self.first = convolved(3, width, 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolved(before, own, 3, 2), C2f(own, own, count, True))
            for before, own, count in zip([width, *widths], widths, repeats, strict=False)
        )
        _, c3, c4, c5 = widths
        self.pyramid = PoolingPyramid(c5)
        self.enlarge = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.up4, self.up3 = C2f(c5 + c4, c4, 1, False), C2f(c4 + c3, c3, 1, False)
        self.low3, self.low4 = convolved(c3, c3, 3, 2), convolved(c4, c4, 3, 2)
        self.down4, self.down5 = C2f(c3 + c4, c4, 1, False), C2f(c4 + c5, c5, 1, False)
        self.detect = Detect([c3, c4, c5], classes, bins, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, size, size] -> [n, 4 + classes, anchors]."""
        x = self.first(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        p3, p4, p5 = levels[1], levels[2], self.pyramid(levels[3])
        n4 = self.up4(torch.cat([self.enlarge(p5), p4], 1))
        n3 = self.up3(torch.cat([self.enlarge(n4), p3], 1))
        m4 = self.down4(torch.cat([self.low3(n3), n4], 1))
        m5 = self.down5(torch.cat([self.low4(m4), p5], 1))
        return self.detect([n3, m4, m5])


def yolo(*, tiny: bool = False, width: int | None = None, classes: int | None = None, seed: int = 0) -> Example:
    """A YOLOv8-like detector."""
    size, repeats = (64, (1, 1, 1, 1)) if tiny else (320, (1, 2, 2, 1))
    module = Yolo(width or (4 if tiny else 16), classes or (3 if tiny else 80), 4 if tiny else 16, size, repeats)
    return seeded(module, seed), images(size, seed)
