"""Convolutions and what stands around them: norms, gates, shuffles, pooling, on maps, signals and volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.choice import MAP, SIGNAL, VOLUME, Choice, Shape, block

__all__ = ["conv", "norm"]

SPATIAL = (MAP, SIGNAL, VOLUME)
CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
BATCH = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def conv(shape: Shape, out: int, kernel: int = 1, *, groups: int = 1, bias: bool = True, inner: int = 0) -> nn.Module:
    """A convolution that keeps sizes."""
    inner = inner or shape[1]
    made: nn.Module = CONVOLUTIONS[len(shape)](inner, out, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return made


def norm(t: Choice, shape: Shape, channels: int) -> nn.Module:
    """Some normalisation of ``channels``, with weights or without, or none."""
    rank = len(shape)
    kind = t.pick(["batch", "batch", "batch", "group", "instance", "none", "plain", "one"])
    made: nn.Module = nn.Identity()
    if kind == "batch":
        made = BATCH[rank](channels, track_running_stats=t.chance(0.9), momentum=t.pick([0.1, 0.5]))
    if kind == "plain":
        made = BATCH[rank](channels, affine=False)
    if kind == "one":
        made = nn.GroupNorm(1, channels)
    if kind == "group":
        made = nn.GroupNorm(t.divisor(channels), channels, affine=t.chance(0.8))
    small = all(size == 1 for size in shape[2:])
    if kind == "instance" and not small:
        made = INSTANCE[rank](channels, affine=t.chance(0.5), track_running_stats=t.chance(0.3))
    if isinstance(made, nn.GroupNorm) and small and made.num_groups == channels:
        made = nn.Identity()
    return made


@block(*SPATIAL, weight=3)
class ConvNorm(nn.Module):
    """Convolution, norm, activation; grouped, depthwise or dilated at times."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, out = shape[1], t.width()
        groups = t.pick([1, 1, 1, 2, 3, width])
        if groups == width:
            out = width * t.pick([1, 1, 2])
        t.need(width % groups == 0 and out <= 24)
        out += -out % groups
        kernel, dilation = t.pick([(1, 1), (3, 1), (3, 2)])
        padding = "same" if t.chance(0.3) else dilation * (kernel // 2)
        mode = "zeros"
        if kernel == 3 and dilation == 1 and min(shape[2:]) > 1 and padding != "same":
            mode = t.pick(["zeros", "zeros", "reflect", "circular", "replicate"])
        self.conv = CONVOLUTIONS[len(shape)](
            width, out, kernel, padding=padding, dilation=dilation, groups=groups, bias=t.chance(0.5), padding_mode=mode
        )
        self.norm, self.act = norm(t, shape, out), t.act()
        self.first = t.chance(0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(self.act(y)) if self.first else self.act(self.norm(y))


@block(*SPATIAL)
class Separable(nn.Module):
    """Depthwise, then pointwise: an inverted residual."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[1], t.width()
        self.expand, self.norm1 = conv(shape, hidden, bias=False), norm(t, shape, hidden)
        self.depth, self.norm2 = conv(shape, hidden, 3, groups=hidden, inner=hidden), norm(t, shape, hidden)
        self.project = conv(shape, width, inner=hidden)
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.project(self.act(self.norm2(self.depth(F.relu(self.norm1(self.expand(x)))))))
        return y


@block(*SPATIAL)
class Up(nn.Module):
    """A transposed convolution, grouped at times, back to the size by a slice."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[1]
        groups = t.pick([1, 1, 2, width])
        t.need(width % groups == 0)
        out = width if groups == width else t.width()
        self.up = TRANSPOSED[len(shape)](width, out + -out % groups, 2, stride=2, groups=groups, bias=t.chance(0.5))
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.up(x))
        return y[(..., *(slice(size) for size in x.shape[2:]))]


@block(MAP, SIGNAL, weight=0.7)
class Resize(nn.Module):
    """Pooling, and upsampling back."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        t.need(min(shape[2:]) >= 2 and shape[-1] % 2 == 0)
        self.form = t.pick(["max", "average", "adaptive", "lp"])
        self.mode = t.pick(["nearest", "bilinear" if len(shape) == 4 else "linear"])
        self.conv = conv(shape, t.width())
        self.flat = len(shape) == 3

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.form == "max":
            y = F.max_pool1d(x, 2) if self.flat else F.max_pool2d(x, 2)
        elif self.form == "average":
            y = F.avg_pool1d(x, 2) if self.flat else F.avg_pool2d(x, 2, ceil_mode=True)
        elif self.form == "lp":
            y = F.lp_pool1d(x.abs() + 0.1, 2, 2) if self.flat else F.lp_pool2d(x.abs() + 0.1, 2, 2)
        else:
            y = F.adaptive_avg_pool1d(x, 2) if self.flat else F.adaptive_max_pool2d(x, (2, 2))
        z: Tensor = self.conv(F.interpolate(y, size=size, mode=self.mode))
        return z


@block(*SPATIAL)
class Gate(nn.Module):
    """Squeeze and excite: by linear layers, by convolutions, or efficiently along the channels."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[1], t.width()
        self.linear = t.chance(0.5)
        if self.linear:
            self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        else:
            self.down, self.up = conv(shape, hidden), conv(shape, width, inner=hidden)
        self.gate = t.pick([torch.sigmoid, F.hardsigmoid, F.softplus])
        self.dims = tuple(range(2, len(shape)))

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean(self.dims, keepdim=not self.linear)
        y = self.gate(self.up(F.relu(self.down(y))))
        if self.linear:
            y = y.view(*y.shape, *(1 for _ in self.dims))
        return x * y


@block(MAP)
class Pixels(nn.Module):
    """Sub-pixel shuffles up and down, in either order."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = t.pick([2, 3, 4])
        self.up = t.chance(0.5)
        t.need(self.up or all(size % 2 == 0 for size in shape[2:]))
        self.first = conv(shape, 4 * width if self.up else width)
        self.last = conv(shape, t.width(), inner=4 * width)
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.up:
            y = F.pixel_unshuffle(self.act(F.pixel_shuffle(y, 2)), 2)
        else:
            y = self.act(F.pixel_unshuffle(y, 2))
            return F.pixel_shuffle(self.last(y).repeat(1, 4, 1, 1), 2)
        z: Tensor = self.last(y)
        return z


@block(*SPATIAL)
class Shuffle(nn.Module):
    """Channels shuffled by views or by the operator, between grouped convolutions at times."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = t.pick([4, 6, 8, 12])
        self.groups, grouped = t.divisor(width), t.divisor(width, 1)
        self.first, self.last = conv(shape, width), conv(shape, width, groups=grouped, inner=width)
        self.native = t.chance(0.4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.native:
            y = F.channel_shuffle(y, self.groups)
        else:
            n, c = y.shape[:2]
            y = y.view(n, self.groups, c // self.groups, *y.shape[2:]).transpose(1, 2).reshape(n, c, *y.shape[2:])
        z: Tensor = self.last(y)
        return z


@block(*SPATIAL)
class Dense(nn.Module):
    """Every layer reads all features before it."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[1]
        growth = [t.pick([2, 3, 4]) for _ in range(2)]
        self.layers = nn.ModuleList()
        for number, out in enumerate(growth):
            inner = width + sum(growth[:number])
            self.layers.append(nn.Sequential(norm(t, shape, inner), nn.ReLU(), conv(shape, out, inner=inner)))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


@block(*SPATIAL)
class CrossStage(nn.Module):
    """Parts of a convolution, the last one processed again and again, all concatenated (YOLO's block)."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        hidden = t.pick([3, 4, 5])
        self.hidden = hidden
        self.first = conv(shape, 2 * hidden)
        count = t.pick([1, 2])
        self.blocks = nn.ModuleList(conv(shape, hidden, 3, inner=hidden) for _ in range(count))
        self.last = conv(shape, t.width(), inner=(2 + count) * hidden)
        self.form = t.pick(["chunk", "split", "slices", "narrow"])
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.act(self.first(x)), self.hidden
        if self.form == "chunk":
            parts = list(y.chunk(2, 1))
        elif self.form == "split":
            parts = list(y.split(h, 1))
        elif self.form == "slices":
            parts = [y[:, :h], y[:, h:]]
        else:
            parts = [y.narrow(1, 0, h), y.narrow(1, h, h)]
        for layer in self.blocks:
            parts.append(parts[-1] + layer(parts[-1]))
        z: Tensor = self.last(torch.cat(parts, 1))
        return z


@block(*SPATIAL)
class Twice(nn.Module):
    """One convolution called twice, and another that shares its weight."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.inner, self.conv = conv(shape, t.width()), None
        width = self.inner.out_channels
        self.conv, self.twin = (conv(shape, width, 3, inner=width) for _ in range(2))
        self.twin.weight = self.conv.weight
        self.act, self.norm = t.act(), norm(t, shape, width)
        self.shared = t.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(self.inner(x)))
        y = self.norm(self.twin(y))
        if self.shared:
            y = y + self.norm(self.conv(y))
        return y


@block(MAP)
class LayerNorm2d(nn.Module):
    """ConvNeXt: depthwise convolution, layer norm and a gated network with channels last, a scale for each channel."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[1], t.width()
        self.depth, self.norm = (
            conv(shape, width, 3, groups=width),
            nn.LayerNorm(width, elementwise_affine=t.chance(0.8)),
        )
        self.grow, self.shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.last = t.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.shrink(F.gelu(self.grow(y)))
        if self.last:
            return x + (y * self.scale).permute(0, 3, 1, 2)
        return x.add(y.movedim(-1, 1).mul(self.scale[:, None, None]))
