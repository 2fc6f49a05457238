"""Layers whose weights are computed, shared in parts, or stored in another form than they are used in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from random_modules.blocks_conv import conv
from random_modules.choice import MAP, SIGNAL, TOKENS, VECTOR, VOLUME, Choice, Shape, block

__all__: list[str] = []


@block(MAP, SIGNAL, VOLUME)
class Standardized(nn.Module):
    """A convolution whose weight is standardised at each call, or is a norm times a direction."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.form = t.pick(["standard", "norm", "gain"])
        self.conv = conv(shape, t.width(), 3)
        self.last = conv(shape, t.width(), inner=self.conv.out_channels)
        if self.form == "norm":
            parametrizations.weight_norm(self.conv)
        if self.form == "gain":
            self.gain = nn.Parameter(torch.rand(self.conv.out_channels, *(1 for _ in shape[1:])) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        c = self.conv
        if self.form == "standard":
            w = c.weight
            dims = tuple(range(1, w.dim()))
            w = (w - w.mean(dims, keepdim=True)) / (w.std(dims, keepdim=True) + 1e-3)
            return self.last(F.relu(c._conv_forward(x, w, c.bias)))
        if self.form == "gain":
            return self.last(F.relu(c._conv_forward(x, c.weight * self.gain, None)))
        return self.last(F.relu(c(x)))


@block(TOKENS, VECTOR)
class Functional(nn.Module):
    """Weights that are transposed, taken in parts, stacked, masked or added to (LoRA) before they are used."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[-1], t.pick([4, 6, 8])
        self.form = t.pick(["transposed", "parts", "stacked", "masked", "lora", "matmul", "tied", "concat", "view"])
        self.hidden = hidden
        if self.form in ("parts", "stacked"):
            self.weight = nn.Parameter(torch.randn(*((2, hidden) if self.form == "stacked" else (2 * hidden,)), width))
        elif self.form == "view":
            self.weight = nn.Parameter(torch.randn(hidden, width, 1, 1))
        elif self.form in ("transposed", "matmul"):
            self.weight = nn.Parameter(torch.randn(width, hidden))
        else:
            self.weight = nn.Parameter(torch.randn(hidden, width))
        if self.form == "masked":
            self.register_buffer("mask", torch.tensor([[t.chance(0.6) for _ in range(width)] for _ in range(hidden)]))
        if self.form == "lora":
            self.a, self.b = nn.Parameter(torch.randn(2, width)), nn.Parameter(torch.randn(hidden, 2))
        if self.form == "concat":
            self.more = nn.Parameter(torch.randn(3, width))
        self.last = None if self.form == "tied" else nn.Linear(hidden + 3 * (self.form == "concat"), width)
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        if self.form == "transposed":
            y = F.linear(x, w.t())
        elif self.form == "matmul":
            y = x @ w
        elif self.form == "parts":
            y = F.linear(x, w[: self.hidden]) * F.linear(x, w[self.hidden :]).sigmoid()
        elif self.form == "stacked":
            y = F.linear(x, w[0]) + F.linear(x, w[1]).tanh()
        elif self.form == "masked":
            y = F.linear(x, w * self.mask)
        elif self.form == "lora":
            y = F.linear(x, w + 0.5 * self.b @ self.a)
        elif self.form == "concat":
            y = F.linear(x, torch.cat((w, self.more)))
        elif self.form == "view":
            y = F.linear(x, w.view(w.shape[0], -1))
        else:
            return F.linear(self.act(F.linear(x, w)), w.t())
        return self.last(self.act(y))


@block(MAP)
class Dynamic(nn.Module):
    """Features that modulate features: FiLM, branch attention, spatial attention, global response, channel context."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[1]
        self.form = t.pick(["film", "select", "spatial", "response", "eca", "context", "outer"])
        if self.form == "film":
            self.modulate = nn.Linear(width, 2 * width)
        if self.form == "select":
            self.branches = nn.ModuleList(conv(shape, width, kernel) for kernel in (1, 3))
            self.squeeze = nn.Linear(width, 4)
            self.expand = nn.ModuleList(nn.Linear(4, width) for _ in range(2))
        if self.form == "spatial":
            self.attend = nn.Conv2d(2, 1, 3, padding=1)
        if self.form == "response":
            self.gamma, self.beta = (nn.Parameter(torch.rand(1, width, 1, 1)) for _ in range(2))
        if self.form == "eca":
            self.attend = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        if self.form == "context":
            self.attend, self.transform = (
                conv(shape, 1),
                nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width)),
            )
        if self.form == "outer":
            self.a, self.b = conv(shape, 3), conv(shape, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "film":
            scale, shift = self.modulate(x.mean((2, 3)))[:, :, None, None].chunk(2, 1)
            return x * (1 + scale) + shift
        if self.form == "select":
            found = torch.stack([branch(x) for branch in self.branches], 1)
            squeezed = F.relu(self.squeeze(found.sum(1).mean((2, 3))))
            weights = torch.stack([layer(squeezed) for layer in self.expand], 1).softmax(1)
            return (found * weights[..., None, None]).sum(1)
        if self.form == "spatial":
            return x * self.attend(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)).sigmoid()
        if self.form == "response":
            y = x.norm(p=2, dim=(2, 3), keepdim=True)
            return self.gamma * (x * (y / (y.mean(1, keepdim=True) + 1e-6))) + self.beta + x
        if self.form == "eca":
            y = x.mean((2, 3), keepdim=True)
            return x * self.attend(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1).sigmoid()
        if self.form == "context":
            weights = self.attend(x).flatten(2).softmax(-1)
            return x + self.transform((x.flatten(2) * weights).sum(-1))[:, :, None, None]
        a, b = self.a(x), self.b(x)
        return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1, 2)


@block(MAP, SIGNAL)
class Layers(nn.Module):
    """Layers with a parameter or a statistic for each channel, and dropouts of whole channels."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.conv = conv(shape, t.width())
        width, flat = self.conv.out_channels, len(shape) == 3
        options = [
            nn.PReLU(width),
            nn.PReLU(),
            nn.LocalResponseNorm(3),
            nn.LayerNorm([width, *shape[2:]]),
            nn.LayerNorm(shape[-1:]),
            nn.Dropout1d(0.2) if flat else nn.Dropout2d(0.2),
            nn.AlphaDropout(0.1),
            nn.RReLU(),
            nn.GLU(1) if width % 2 == 0 else nn.Softmax(1),
            nn.Softmax(1),
            nn.ConstantPad1d(1, 0.5) if flat else nn.ReflectionPad2d(1),
            nn.Linear(shape[-1], shape[-1]),
            nn.Hardtanh(-0.5, 0.5, inplace=True),
            nn.Threshold(0.1, 0.3, inplace=True),
        ]
        self.layer = t.pick(options)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.conv(x))
        return y


@block(MAP, weight=0.7)
class Patches(nn.Module):
    """Values of neighbours as channels, and windows as a batch."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        t.need(all(size % 2 == 0 for size in shape[2:]))
        self.form = t.pick(["unfold", "windows", "merge", "fold", "bottleneck"])
        width, hidden = shape[1], t.width()
        if self.form == "unfold":
            self.layer = nn.Linear(4 * width, hidden)
        elif self.form == "windows":
            self.layer = nn.Linear(width, hidden)
        elif self.form == "merge":
            self.norm, self.layer = nn.LayerNorm(4 * width), nn.Linear(4 * width, hidden, bias=False)
        elif self.form == "fold":
            self.layer = conv(shape, 4 * hidden)
        else:
            size = width * shape[2] * shape[3]
            self.layer, self.back = nn.Linear(size, 5), nn.Linear(5, size)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.form == "unfold":
            y = self.layer(F.unfold(x, 2, stride=2).transpose(1, 2)).transpose(1, 2)
            return F.fold(y.repeat(1, 4, 1), (h, w), 2, stride=2)
        if self.form == "windows":
            y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
            y = self.layer(y + y.mean(1, keepdim=True)).view(n, h // 2, w // 2, 2, 2, -1)
            return y.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, h, w)
        if self.form == "merge":
            y = x.permute(0, 2, 3, 1)
            y = torch.cat([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)
            y = self.layer(self.norm(y)).permute(0, 3, 1, 2)
            return F.interpolate(y, scale_factor=2.0)
        if self.form == "fold":
            y = self.layer(x).unflatten(1, (-1, 2, 2)).amax((2, 3))
            return y
        return self.back(F.relu(self.layer(x.flatten(1)))).view(n, c, h, w)
