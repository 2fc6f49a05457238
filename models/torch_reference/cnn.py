"""Plain convolutional classifiers: ResNet, VGG, SqueezeNet, MobileNetV2, Inception."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from graphprune.models.torch_reference.blocks import Classifier, ConvBn, seeded

__all__ = ["Example", "images", "inception", "mobilenet_v2", "resnet18", "resnet50", "squeezenet", "stem", "vgg16"]

Example = tuple[nn.Module, tuple[torch.Tensor, ...]]
"""A module and arguments that it runs on."""


def images(size: int, seed: int) -> tuple[torch.Tensor]:
    """Two random images as arguments."""
    return (torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed)),)


def stem(width: int, tiny: bool) -> nn.Module:
    """Downsample by four as ImageNet networks do; a tiny network keeps its small image."""
    if tiny:
        return ConvBn(3, width, 3)
    return nn.Sequential(ConvBn(3, width, 7, stride=2), nn.MaxPool2d(3, 2, 1))


class Residual(nn.Module):
    """A basic or, where ``expansion`` is four, a bottleneck block (He et al. 2016)."""

    def __init__(self, inputs: int, inner: int, expansion: int, stride: int) -> None:
        super().__init__()
        out = inner * expansion
        if expansion == 1:
            self.branch = nn.Sequential(ConvBn(inputs, inner, 3, stride=stride), ConvBn(inner, out, 3, activation=None))
        else:
            self.branch = nn.Sequential(
                ConvBn(inputs, inner, 1),
                ConvBn(inner, inner, 3, stride=stride),
                ConvBn(inner, out, 1, activation=None),
            )
        same = stride == 1 and inputs == out
        self.shortcut = nn.Identity() if same else ConvBn(inputs, out, 1, stride=stride, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, inner * expansion, h', w']."""
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet(stages: Sequence[int], *, expansion: int, width: int, tiny: bool, classes: int) -> nn.Module:
    """A residual network."""
    layers: list[nn.Module] = [stem(width, tiny)]
    inputs = width
    for stage, blocks in enumerate(stages):
        inner = width * 2**stage
        for block in range(blocks):
            layers.append(Residual(inputs, inner, expansion, 2 if stage and not block else 1))
            inputs = inner * expansion
    return nn.Sequential(*layers, Classifier(inputs, classes))


def resnet18(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """ResNet-18."""
    stages = (1, 1) if tiny else (2, 2, 2, 2)
    module = resnet(stages, expansion=1, width=width or (8 if tiny else 64), tiny=tiny, classes=classes)
    return seeded(module, seed), images(16 if tiny else 224, seed)


def resnet50(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """ResNet-50."""
    stages = (1, 1) if tiny else (3, 4, 6, 3)
    module = resnet(stages, expansion=4, width=width or (4 if tiny else 64), tiny=tiny, classes=classes)
    return seeded(module, seed), images(16 if tiny else 224, seed)


def vgg16(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """VGG-16 (Simonyan and Zisserman 2015) with a classifier of 1024 units over the flattened 7x7 map."""
    width = width or (8 if tiny else 64)
    plan, side = ((1, 2), 4) if tiny else ((2, 2, 3, 3, 3), 7)
    layers: list[nn.Module] = []
    inputs = 3
    for stage, convs in enumerate(plan):
        for _ in range(convs):
            out = width * min(2**stage, 8)
            layers += [nn.Conv2d(inputs, out, 3, padding=1), nn.ReLU()]
            inputs = out
        layers.append(nn.MaxPool2d(2, 2))
    layers.append(nn.Flatten())
    inputs *= side * side
    for _ in range(2):
        units = width * (2 if tiny else 16)
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    layers.append(nn.Linear(inputs, classes))
    return seeded(nn.Sequential(*layers), seed), images(16 if tiny else 224, seed)


class Fire(nn.Module):
    """Squeeze by a 1x1 convolution, expand by a 1x1 and a 3x3 side by side."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, width, 1)
        self.small = nn.Conv2d(width, 4 * width, 1)
        self.large = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, 8 * width, h, w]."""
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.small(x)), torch.relu(self.large(x))], 1)


def squeezenet(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    width = width or (4 if tiny else 16)
    inputs = 4 * width
    layers: list[nn.Module] = [nn.Conv2d(3, inputs, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for block, factor in enumerate((1, 2) if tiny else (1, 1, 2, 2, 3, 3, 4, 4)):
        layers.append(Fire(inputs, width * factor))
        inputs = 8 * width * factor
        if block in (1, 3) and not tiny:
            layers.append(nn.MaxPool2d(3, 2, 1))
    layers += [nn.Conv2d(inputs, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return seeded(nn.Sequential(*layers), seed), images(32 if tiny else 224, seed)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; with a shortcut where the shape allows."""

    def __init__(self, inputs: int, expansion: int, out: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = ConvBn(inputs, inner, 1, activation=nn.ReLU6) if expansion > 1 else nn.Identity()
        each = ConvBn(inner, inner, 3, stride=stride, groups=inner, activation=nn.ReLU6)
        self.branch = nn.Sequential(widen, each, ConvBn(inner, out, 1, activation=None))
        self.shortcut = stride == 1 and inputs == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, out, h', w']."""
        y = self.branch(x)
        return x + y if self.shortcut else y


def mobilenet_v2(*, tiny: bool = False, width: float = 1.0, classes: int = 1000, seed: int = 0) -> Example:
    """MobileNetV2 (Sandler et al. 2018)."""
    full = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    plan = [(1, 8, 1, 1), (4, 12, 2, 2)] if tiny else full
    inputs = int(32 * width)
    layers: list[nn.Module] = [ConvBn(3, inputs, 3, stride=2, activation=nn.ReLU6)]
    for expansion, channels, count, first in plan:
        for block in range(count):
            out = int(channels * width)
            layers.append(InvertedResidual(inputs, expansion, out, first if block == 0 else 1))
            inputs = out
    last = 32 if tiny else 1280
    layers += [ConvBn(inputs, last, 1, activation=nn.ReLU6), Classifier(last, classes)]
    return seeded(nn.Sequential(*layers), seed), images(16 if tiny else 224, seed)


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1, 3x3 twice, 1x7 then 7x1, pooled."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.single = ConvBn(inputs, 2 * width, 1)
        self.twice = nn.Sequential(
            ConvBn(inputs, width, 1), ConvBn(width, 2 * width, 3), ConvBn(2 * width, 2 * width, 3)
        )
        self.long = nn.Sequential(
            ConvBn(inputs, width, 1), ConvBn(width, 2 * width, (1, 7)), ConvBn(2 * width, 2 * width, (7, 1))
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvBn(inputs, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, 7 * width, h, w]."""
        return torch.cat([self.single(x), self.twice(x), self.long(x), self.pooled(x)], 1)


def inception(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """A network of Inception blocks with factorised 1x7 and 7x1 convolutions (Szegedy et al. 2016)."""
    width = width or (4 if tiny else 32)
    inputs = 2 * width
    layers: list[nn.Module] = [stem(inputs, tiny)]
    for stage in range(1 if tiny else 3):
        for _ in range(2 if tiny else 3):
            layers.append(InceptionBlock(inputs, width * 2**stage))
            inputs = 7 * width * 2**stage
        if not tiny:
            layers.append(nn.MaxPool2d(3, 2, 1))
    return seeded(nn.Sequential(*layers, Classifier(inputs, classes)), seed), images(16 if tiny else 224, seed)
