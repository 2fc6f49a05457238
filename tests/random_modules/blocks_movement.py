"""Channels that move: parts, slices, paddings, selections, reshapes; on any kind of value."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.blocks_conv import conv
from random_modules.choice import MAP, SIGNAL, TOKENS, VECTOR, VOLUME, Choice, Shape, block

__all__ = ["channel", "layer"]

KINDS = (MAP, SIGNAL, TOKENS, VECTOR, VOLUME)


def channel(shape: Shape, kind: str) -> int:
    """The dimension of channels."""
    return len(shape) - 1 if kind in (TOKENS, VECTOR) else 1


def layer(shape: Shape, kind: str, out: int, inner: int = 0, *, bias: bool = True) -> nn.Module:
    """A linear layer or a convolution over the channels."""
    if kind in (TOKENS, VECTOR):
        return nn.Linear(inner or shape[-1], out, bias=bias)
    return conv(shape, out, inner=inner, bias=bias)


class Moving(nn.Module):
    """What the blocks below share: where the channels are, and a layer before."""

    kind = ""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.dim = channel(shape, self.kind)
        self.width = t.width()
        self.first = layer(shape, self.kind, self.width)
        self.setup(t, shape)

    def setup(self, t: Choice, shape: Shape) -> None:
        """Choose."""

    def forward(self, x: Tensor) -> Tensor:
        return self.move(self.first(x))

    def move(self, x: Tensor) -> Tensor:
        """Move the channels of ``x``."""
        raise NotImplementedError


def everywhere(weight: float = 1.0) -> object:
    """Enter a moving block for each kind of value."""

    def enter(made: type[Moving]) -> type[Moving]:
        for kind in KINDS:
            block(kind, weight=weight)(type(made.__name__, (made,), {"kind": kind}))
        return made

    return enter


@everywhere(1.5)
class Parts(Moving):
    """Parts of unequal sizes, in another order, some of them processed or left out."""

    def setup(self, t: Choice, shape: Shape) -> None:
        count = t.pick([2, 3])
        self.sizes = t.parts(self.width, count)
        self.order = t.sample(range(count), count)
        if count == 3 and t.chance(0.4):
            self.order = self.order[:2]
        self.layer = layer(shape, self.kind, self.sizes[0], self.sizes[0])
        self.act = t.act()
        self.form = t.pick(["split", "tensor_split", "slices"])

    def move(self, x: Tensor) -> Tensor:
        borders = [sum(self.sizes[:number]) for number in range(len(self.sizes) + 1)]
        if self.form == "split":
            parts = list(x.split(self.sizes, self.dim))
        elif self.form == "tensor_split":
            parts = list(x.tensor_split(borders[1:-1], self.dim))
        else:
            parts = [x.narrow(self.dim, a, b - a) for a, b in itertools.pairwise(borders)]
        parts[0] = self.act(self.layer(parts[0]))
        return torch.cat([parts[number] for number in self.order], self.dim)


@everywhere()
class Uneven(Moving):
    """Chunks, whose last part may be smaller."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.count = t.pick([2, 3, 4])
        self.act = t.act()

    def move(self, x: Tensor) -> Tensor:
        first, *rest = x.chunk(self.count, self.dim)
        return torch.cat([*rest, self.act(first.clone())], self.dim)


@everywhere()
class Padded(Moving):
    """Channels of a constant added before and after, or some cut off."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.amounts = t.pick([(0, 2), (1, 0), (2, 3), (-1, 0), (-1, 2)])
        self.value = t.pick([0.0, 0.0, 0.5])

    def move(self, x: Tensor) -> Tensor:
        after = (0, 0) * (x.dim() - 1 - self.dim)
        return F.pad(x, (*after, *self.amounts), value=self.value)


@everywhere()
class Sliced(Moving):
    """Every second channel, a range of them, or those that constant indices name."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.form = t.pick(["step", "range", "select", "index", "gather", "flip", "roll", "interleave"])
        indices = [t.randrange(self.width) for _ in range(self.width)] if t.chance(0.4) else list(range(self.width))
        t.shuffle(indices)
        self.register_buffer("indices", torch.tensor(indices))
        self.start = t.randrange(self.width // 2)

    def move(self, x: Tensor) -> Tensor:
        where = [slice(None)] * self.dim
        if self.form == "step":
            return x[(*where, slice(self.start % 2, None, 2))]
        if self.form == "range":
            return x[(*where, slice(self.start, -1))]
        if self.form == "select":
            return x.index_select(self.dim, self.indices)
        if self.form == "index":
            return x[(*where, self.indices)]
        if self.form == "flip":
            return x.flip(self.dim)
        if self.form == "roll":
            return x.roll(self.start, self.dim)
        if self.form == "interleave":
            return x.repeat_interleave(2, self.dim)
        return x.take_along_dim(
            self.indices.view(*(-1 if d == self.dim else 1 for d in range(x.dim()))).expand_as(x), self.dim
        )


@everywhere(1.5)
class Folded(Moving):
    """Channels in two dimensions: weights of each, a swap, a reduction, and back."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.outer = t.divisor(self.width)
        t.need(self.outer < self.width)
        inner = self.width // self.outer
        self.form = t.pick(["swap", "scale", "softmax", "mean", "max", "normalize", "unbind", "glu", "bias"])
        after = (1,) * (len(shape) - 1 - self.dim)
        if self.form == "scale":
            self.scale = nn.Parameter(torch.rand(self.outer, 1, *after) + 0.5)
        if self.form == "bias":
            self.bias = nn.Parameter(torch.randn(inner, *after))
        self.by = t.pick(["view", "unflatten", "reshape"])

    def move(self, x: Tensor) -> Tensor:
        d, sizes = self.dim, (self.outer, x.shape[self.dim] // self.outer)
        if self.by == "unflatten":
            y = x.unflatten(d, sizes)
        elif self.by == "view" and x.is_contiguous():
            y = x.view(*x.shape[:d], *sizes, *x.shape[d + 1 :])
        else:
            y = x.reshape(*x.shape[:d], self.outer, -1, *x.shape[d + 1 :])
        if self.form == "mean":
            return y.mean(d)
        if self.form == "max":
            return y.amax(d + 1)
        if self.form == "unbind":
            first, *rest = y.unbind(d)
            return torch.cat([*rest, first.tanh()], d)
        if self.form == "swap":
            y = y.transpose(d, d + 1)
        elif self.form == "softmax":
            y = y.softmax(d) * 3
        elif self.form == "normalize":
            y = F.normalize(y, dim=d + 1)
        elif self.form == "glu":
            y = y * y[(*[slice(None)] * d, slice(0, 1))].sigmoid()
        elif self.form == "bias":
            y = y + self.bias
        elif self.form == "scale":
            y = y * self.scale
        return y.flatten(d, d + 1)


@everywhere()
class Masked(Moving):
    """Values replaced where a condition holds, at constant or computed places."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.form = t.pick(["where", "masked_fill", "clamp", "relation", "constant", "masked"])
        after = (1,) * (len(shape) - 1 - self.dim)
        self.register_buffer("mask", torch.tensor([t.chance(0.5) for _ in range(self.width)]).view(-1, *after))
        if self.form in ("where", "relation"):
            self.other = layer(shape, self.kind, self.width, self.width)

    def move(self, x: Tensor) -> Tensor:
        if self.form == "where":
            return torch.where(x > 0, x, self.other(x))
        if self.form == "masked_fill":
            return x.masked_fill(x < -0.5, 0.25)
        if self.form == "clamp":
            return x.clamp(-0.5, 0.7) + x.clamp_min(0.1)
        if self.form == "relation":
            return x * (x > self.other(x)).to(x.dtype)
        if self.form == "constant":
            return torch.where(self.mask, x, torch.zeros((), dtype=x.dtype))
        return x.masked_fill(self.mask, -0.5)


@everywhere()
class Written(Moving):
    """Values that are written in place: sums, products, slices of a copy."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.form = t.pick(["add_", "mul_", "slice", "fill", "zero", "copy_"])
        self.half = self.width // 2
        self.other = layer(shape, self.kind, self.width, self.width)
        self.nograd = t.chance(0.2)

    def move(self, x: Tensor) -> Tensor:
        if self.nograd:
            with torch.no_grad():
                y = self.other(x)
        else:
            y = self.other(x)
        if self.form == "add_":
            y = y.clone()
            y += x
            return y
        if self.form == "mul_":
            return y.clone().mul_(x.sigmoid()).add_(1)
        y = y.clone()
        part = y.narrow(self.dim, 0, self.half)
        if self.form == "slice":
            part *= 2
        elif self.form == "zero":
            part.zero_()
        elif self.form == "fill":
            part.fill_(0.5)
        else:
            part.copy_(x.narrow(self.dim, 0, self.half))
        return x + y


@everywhere()
class Reduced(Moving):
    """Statistics over channels that scale the value: norms by hand."""

    def setup(self, t: Choice, shape: Shape) -> None:
        self.form = t.pick(["rms", "layer", "softmax", "max", "norm", "cumsum", "sum", "logsumexp"])
        after = (1,) * (len(shape) - 1 - self.dim)
        if self.form not in ("max", "logsumexp", "sum"):
            self.weight = nn.Parameter(torch.rand(self.width, *after) + 0.5)

    def move(self, x: Tensor) -> Tensor:
        d = self.dim
        if self.form == "rms":
            return x * torch.rsqrt(x.pow(2).mean(d, keepdim=True) + 1e-5) * self.weight
        if self.form == "layer":
            y = x - x.mean(d, keepdim=True)
            return y / (y.var(d, keepdim=True, unbiased=False) + 1e-5).sqrt() * self.weight
        if self.form == "softmax":
            return x.softmax(d) * self.weight * 4
        if self.form == "max":
            return x - x.amax(d, keepdim=True) * 0.5
        if self.form == "norm":
            return F.normalize(x, dim=d) * self.weight
        if self.form == "cumsum":
            return x.cumsum(d) * self.weight
        if self.form == "logsumexp":
            return x - x.logsumexp(d, keepdim=True)
        return x + x.sum(d, keepdim=True) * 0.1
