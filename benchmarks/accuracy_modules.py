"""The trained networks of the corpus as PyTorch modules, for what needs PyTorch: the rival, gradients, fine-tuning."""

from __future__ import annotations

from typing import Any

import torch
from accuracy_data import corpus
from torch import nn
from torch.nn import functional

__all__ = ["MobileNetV1", "MobileNetV2", "ResNet", "module", "plain_state", "vgg16"]


class Block(nn.Module):
    """Two convolutions of a CIFAR ResNet; where it strides, its shortcut takes every other pixel and adds zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """A ResNet for CIFAR-10 of ``6 * blocks + 2`` layers with shortcuts without weights (1512.03385, option A)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            first = Block(inputs, outputs, 1 if stage == 1 else 2)
            setattr(
                self, f"layer{stage}", nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
            )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 10) of images (batch, 3, 32, 32)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(0.1),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


class MobileNetV1(nn.Module):
    """A MobileNetV1 of a quarter of the width, with leaky rectifiers."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        widths = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.stage1 = nn.Sequential(first, *(_separable(*width) for width in widths))
        self.stage2 = nn.Sequential(_separable(64, 128, 2), *(_separable(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(128, 256, 2), _separable(256, 256, 1))
        self.fc = nn.Linear(256, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1000) of images (batch, 3, 224, 224)."""
        return self.fc(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups), nn.ReLU())


class Inverted(nn.Module):
    """An inverted residual block, its normalisations folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        wide = [_convolution(inputs, inner, 1)] if expansion > 1 else []
        depthwise = _convolution(inner, inner, 3, stride, inner)
        self.conv = nn.Sequential(*wide, depthwise, nn.Conv2d(inner, outputs, 1))
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNetV2(nn.Module):
    """A MobileNetV2 as torchvision lays it out, normalisations folded, with plain rectifiers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, 2)]
        inputs = 32
        early, late = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2)), ((6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
        stages = (*early, *late, (6, 320, 1, 1))
        for expansion, outputs, count, stride in stages:
            for place in range(count):
                layers.append(Inverted(inputs, outputs, stride if place == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, _convolution(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1000) of images (batch, 3, 224, 224)."""
        return self.classifier(self.features(x).mean((2, 3)))


def vgg16() -> nn.Module:
    """Return an untrained VGG-16 with normalisations for images of 32 pixels, with one linear layer at the end."""
    layers: list[nn.Module] = []
    inputs = 3
    for widths in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for outputs in widths:
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def plain_state(file: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of the corpus under the names that the modules here have."""
    stored: Any = torch.load(corpus() / "torch" / file, map_location="cpu", weights_only=True)
    state = stored.get("state_dict", stored)
    return {name.removeprefix("module."): value for name, value in state.items()}


def module(name: str) -> nn.Module:
    """Return the trained network of this name in evaluation mode."""
    makers: dict[str, tuple[Any, str]] = {
        "resnet20": (lambda: ResNet(3), "cifar10_resnet20.th"),
        "resnet56": (lambda: ResNet(9), "cifar10_resnet56.th"),
        "mobilenetv1": (MobileNetV1, "imagenet_mobilenetv1_x0.25_fp32.pt"),
        "mobilenetv2": (MobileNetV2, "imagenet_mobilenetv2_bnfolded_fp32.pt"),
    }
    make, file = makers[name]
    network: nn.Module = make()
    state = plain_state(file)
    missing = [key for key in network.state_dict() if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise SystemExit(f"{file} has no {missing[0]}")
    network.load_state_dict(state, strict=False)
    return network.eval()
