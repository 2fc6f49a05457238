"""A network of random blocks: a source, blocks in residuals and concatenations, changes of kind, a head."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules import (  # noqa: F401
    blocks_attention,
    blocks_conv,
    blocks_movement,
    blocks_networks,
    blocks_sequence,
    blocks_tokens,
    blocks_weights,
)
from random_modules.blocks_movement import channel, layer
from random_modules.choice import BLOCKS, MAP, SIGNAL, TOKENS, VECTOR, VOLUME, Choice, Shape, Unfit

__all__ = ["Case", "random_case"]

EXAMPLES: dict[str, Shape] = {
    MAP: (2, 3, 4, 6),
    SIGNAL: (2, 3, 8),
    VOLUME: (2, 2, 2, 4, 2),
    TOKENS: (2, 5, 4),
    VECTOR: (4, 7),
}


@dataclass(frozen=True)
class Case:
    """A module in its mode and element type, its example inputs, and which of their dimensions are symbolic."""

    module: nn.Module
    args: tuple[Tensor, ...]
    dynamic_shapes: Any
    blocks: tuple[str, ...]


class Wrap(nn.Module):
    """A block by itself, or beside the value that it was given."""

    def __init__(self, inner: nn.Module, how: str, dim: int, other: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.how, self.dim = inner, how, dim
        if other is not None:
            self.other = other

    def forward(self, x: Tensor) -> Tensor:
        kept = x.clone() if self.how != "plain" else x  # blocks may write to what they are given
        y: Tensor = self.inner(x)
        if self.how == "concat":
            return torch.cat((kept, y), self.dim)
        if self.how == "residual":
            return y + self.other(kept)
        if self.how == "add":
            return kept + y
        if self.how == "gate":
            return y * self.other(kept).sigmoid()
        return y


class Convert(nn.Module):
    """From one kind of value to another."""

    def __init__(self, t: Choice, kind: str, to: str) -> None:
        super().__init__()
        self.kind, self.to, self.pool = kind, to, t.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.to == VECTOR:
            if self.kind == TOKENS:
                return x.mean(1) if self.pool else x[:, -1]
            return x.flatten(2).mean(-1) if self.pool else x.flatten(1)
        if self.to == TOKENS:
            return x.flatten(2).transpose(1, 2)
        if self.kind == TOKENS:
            return x.transpose(1, 2)
        return x.flatten(2)  # maps and volumes as signals


CONVERSIONS = {
    MAP: (TOKENS, SIGNAL, VECTOR),
    VOLUME: (TOKENS, VECTOR),
    SIGNAL: (TOKENS, VECTOR),
    TOKENS: (SIGNAL, VECTOR),
    VECTOR: (),
}


class Network(nn.Module):
    """Steps in a row between a first layer and a head; an earlier value may be a second output."""

    def __init__(self, source: nn.Module, steps: list[nn.Module], head: nn.Module, extra: bool) -> None:
        super().__init__()
        self.source, self.steps, self.head = source, nn.ModuleList(steps), head
        self.extra = extra

    def forward(self, x: Tensor) -> Any:
        x = self.source(x)
        for step in self.steps:
            x = step(x)
        y = self.head(x)
        return (y, x.mean()) if self.extra else y


class Embed(nn.Module):
    """Tokens by their numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, width), nn.Embedding(9, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return y


class Tied(nn.Module):
    """A head that shares the table of the source."""

    def __init__(self, source: Embed) -> None:
        super().__init__()
        self.weight = source.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def random_case(seed: int) -> Case:
    """The case of ``seed``; every block has its turn as the first."""
    t = Choice(seed)
    torch.manual_seed(seed)
    first = list(BLOCKS.values())[seed % len(BLOCKS)]
    kind = first.kind
    training, batch = t.chance(0.35), t.chance(0.3)
    source, x = _source(t, kind)
    inputs = x
    steps: list[nn.Module] = []
    used: list[str] = []
    with torch.no_grad():
        x = source(x)
        for number in range(t.randint(1, 4)):
            if number and CONVERSIONS[kind] and t.chance(0.2):
                to = t.pick(CONVERSIONS[kind])
                steps.append(Convert(t, kind, to))
                kind, x = to, steps[-1](x)
            fitting = [each for each in BLOCKS.values() if each.kind == kind]
            picked = first if not number else t.choices(fitting, [each.weight for each in fitting])[0]
            made = _step(t, picked.make, tuple(x.shape), kind, x)
            if made is not None:
                steps.append(made)
                used.append(picked.name)
                x = made(x.clone())
        head: nn.Module
        width = x.shape[channel(tuple(x.shape), kind)]
        if isinstance(source, Embed) and kind == TOKENS and width == source.tokens.embedding_dim and t.chance(0.5):
            head = Tied(source)
        elif kind in (MAP, SIGNAL, VOLUME) and t.chance(0.4):
            head = layer(tuple(x.shape), kind, 3)
        else:
            pooled = [] if kind == VECTOR else [Convert(t, kind, VECTOR)]
            for each in pooled:
                x = each(x)
            head = nn.Sequential(*pooled, nn.Linear(x.shape[1], 3))
    module = Network(source, steps, head, t.chance(0.15))
    _reset(module)
    dtype = t.choices([torch.float32, torch.float64, torch.bfloat16], [8, 2, 1])[0]
    module.to(dtype).train(training)
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    shapes = ({0: t.pick([torch.export.Dim.AUTO, torch.export.Dim.DYNAMIC])},) if batch else None
    return Case(module, (inputs,), shapes, tuple(used))


def _source(t: Choice, kind: str) -> tuple[nn.Module, Tensor]:
    if kind == TOKENS and t.chance(0.4):
        return Embed(t.pick([6, 8, 12])), torch.randint(0, 11, (2, 5))
    shape = EXAMPLES[kind]
    return layer(shape, kind, t.width()), torch.randn(shape)


def _step(t: Choice, make: Any, shape: Shape, kind: str, x: Tensor) -> nn.Module | None:
    """A block with what stands around it; None where it does not fit."""
    inner = None
    for _ in range(4):
        with contextlib.suppress(Unfit):
            inner = make(Choice(t.getrandbits(32)), shape)
            break
    if inner is None:
        return None
    y = inner(x.clone())
    if y.dim() != x.dim() or y.numel() > 4000:
        return None
    dim = channel(shape, kind)
    same = y.shape == x.shape
    alike = all(a == b for d, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if d != dim)
    how = t.pick(["plain", "plain", "concat", "residual", "add", "gate"])
    if not alike or (how == "add" and not same):
        how = "plain"
    other = layer(shape, kind, y.shape[dim]) if how in ("residual", "gate") else None
    return Wrap(inner, how, dim, other)


def _reset(module: nn.Module) -> None:
    """Statistics and affine weights that are not those of a fresh module, so that nothing hides."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape) * 0.5 + 0.75 * name.endswith("var"))
        for child in module.modules():
            if isinstance(child, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
                for parameter in child.parameters():
                    parameter.add_(torch.rand(parameter.shape) * 0.4)
