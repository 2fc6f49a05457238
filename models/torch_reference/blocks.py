"""Blocks that several reference networks share, and the seeding of their weights."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Classifier", "ConvBn", "FeedForward", "RMSNorm", "merge_heads", "repeat", "seeded", "split_heads"]


class ConvBn(nn.Module):
    """Convolve without bias, normalise by stored statistics, and apply ``activation``, if there is one."""

    def __init__(
        self,
        inputs: int,
        out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = ((height - 1) // 2, (width - 1) // 2)
        self.conv = nn.Conv2d(inputs, out, (height, width), stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.activation = activation() if activation is not None else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, out, h', w']."""
        return self.activation(self.bn(self.conv(x)))


class Classifier(nn.Module):
    """Pool over space, flatten, and apply one linear layer."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] -> [n, classes]."""
        return self.fc(torch.flatten(self.pool(x), 1))


class FeedForward(nn.Module):
    """Two linear layers with a Gelu between; ``approximate="tanh"`` is GPT-2's."""

    def __init__(self, width: int, approximate: str = "none") -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU(approximate)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., width]."""
        return self.down(self.gelu(self.up(x)))


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019), spelled out as Llama's code does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Bring [n, t, h*d] to [n, h, t, d]."""
    return x.view(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """Bring [n, h, t, d] back to [n, t, h*d]."""
    return x.transpose(1, 2).flatten(2)


def repeat(x: torch.Tensor, times: int) -> torch.Tensor:
    """Repeat each key or value head of [n, h, t, d] ``times`` times, as grouped queries need."""
    if times == 1:
        return x
    n, heads, length, width = x.shape
    return x[:, :, None].expand(n, heads, times, length, width).reshape(n, heads * times, length, width)


def seeded(module: nn.Module, seed: int) -> nn.Module:
    """Give all parameters and statistics lively values that follow from ``seed``; returns the module in eval mode.

    Matrices are normal with a deviation of ``sqrt(1.5 / fan in)``, gains and variances lie between 0.5 and 1.5, and
    what else there is deviates by 0.1. Parameters that need no gradient are constants and keep their values.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in module.modules():
            normalises = isinstance(owner, nn.BatchNorm2d | nn.LayerNorm | RMSNorm)
            for name, parameter in owner.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                if normalises and name == "weight":
                    parameter.uniform_(0.5, 1.5, generator=generator)
                else:
                    parameter.normal_(0.0, _deviation(owner, parameter), generator=generator)
            if isinstance(owner, nn.BatchNorm2d):
                owner.running_mean.normal_(0.0, 0.1, generator=generator)
                owner.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def _deviation(owner: nn.Module, parameter: torch.Tensor) -> float:
    if parameter.ndim < 2:
        return 0.1
    if isinstance(owner, nn.Linear | nn.Conv2d | nn.LSTM):
        return math.sqrt(1.5 / math.prod(parameter.shape[1:]))
    if isinstance(owner, nn.ConvTranspose2d):
        return math.sqrt(1.5 / parameter.shape[0])
    return 0.5
