"""Classifiers whose channels are concatenated, split and shuffled: DenseNet, ShuffleNetV2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from graphprune.models.torch_reference.blocks import Classifier, ConvBn, seeded
from graphprune.models.torch_reference.cnn import Example, images, stem

__all__ = ["densenet121", "densenet201", "shufflenet_v2"]


class DenseLayer(nn.Module):
    """Normalise and activate, narrow to four times the growth, convolve to the growth."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.narrow = ConvBn(inputs, 4 * growth, 1)
        self.conv = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, growth, h, w]."""
        return self.conv(self.narrow(torch.relu(self.bn(x))))


class DenseStage(nn.Module):
    """Layers of which every one reads the concatenation of all before it."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + layer * growth, growth) for layer in range(layers))
        self.bn = nn.BatchNorm2d(inputs + layers * growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, inputs + layers * growth, h, w]."""
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.relu(self.bn(torch.cat(features, 1)))


def densenet(stages: Sequence[int], *, growth: int, tiny: bool, classes: int) -> nn.Module:
    """A DenseNet (Huang et al. 2017)."""
    inputs = 2 * growth
    layers: list[nn.Module] = [stem(inputs, tiny)]
    for stage, count in enumerate(stages):
        layers.append(DenseStage(inputs, count, growth))
        inputs += count * growth
        if stage + 1 < len(stages):
            layers += [nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
            inputs //= 2
    return nn.Sequential(*layers, Classifier(inputs, classes))


def densenet121(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """DenseNet-121; ``width`` is the growth rate."""
    stages, growth = ((2, 3), 4) if tiny else ((6, 12, 24, 16), 32)
    module = densenet(stages, growth=width or growth, tiny=tiny, classes=classes)
    return seeded(module, seed), images(16 if tiny else 224, seed)


def densenet201(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """DenseNet-201; ``width`` is the growth rate."""
    stages, growth = ((3, 4), 4) if tiny else ((6, 12, 48, 32), 32)
    module = densenet(stages, growth=width or growth, tiny=tiny, classes=classes)
    return seeded(module, seed), images(16 if tiny else 224, seed)


class ShuffleUnit(nn.Module):
    """Transform one half of the channels, keep or downsample the other, shuffle both together."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        start = half if stride == 1 else inputs
        self.down = None
        if stride != 1:
            self.down = nn.Sequential(
                ConvBn(inputs, inputs, 3, stride=2, groups=inputs, activation=None), ConvBn(inputs, half, 1)
            )
        self.branch = nn.Sequential(
            ConvBn(start, half, 1),
            ConvBn(half, half, 3, stride=stride, groups=half, activation=None),
            ConvBn(half, half, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, channels, h', w']."""
        if self.down is None:
            kept, x = x.chunk(2, 1)
        else:
            kept = self.down(x)
        return shuffle(torch.cat([kept, self.branch(x)], 1), 2)


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleave ``groups`` groups of channels."""
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(n, channels, height, width)


def shufflenet_v2(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> Example:
    """ShuffleNetV2 (Ma et al. 2018); ``width`` is the channels of the first stage."""
    width = width or (8 if tiny else 116)
    inputs = 8 if tiny else 24
    layers: list[nn.Module] = [stem(inputs, tiny)]
    for stage, repeats in enumerate((2,) if tiny else (4, 8, 4)):
        for block in range(repeats):
            layers.append(ShuffleUnit(inputs, width * 2**stage, 2 if block == 0 else 1))
            inputs = width * 2**stage
    last = 32 if tiny else 1024
    layers += [ConvBn(inputs, last, 1), Classifier(last, classes)]
    return seeded(nn.Sequential(*layers), seed), images(16 if tiny else 224, seed)
