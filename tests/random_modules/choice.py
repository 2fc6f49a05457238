"""What blocks of random modules choose from, and the table of blocks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BLOCKS", "MAP", "SIGNAL", "TOKENS", "VECTOR", "VOLUME", "Block", "Choice", "Shape", "Unfit", "block"]

MAP = "map"  # [n, c, h, w]
SIGNAL = "signal"  # [n, c, t]
VOLUME = "volume"  # [n, c, d, h, w]
TOKENS = "tokens"  # [n, t, c]
VECTOR = "vector"  # [n, c]

Shape = tuple[int, ...]
T = TypeVar("T")
M = TypeVar("M", bound=type[nn.Module])


class Unfit(Exception):
    """The block cannot follow a value of this shape; the caller leaves it out."""


@dataclass(frozen=True)
class Block:
    """A kind of module: ``make(choice, shape)`` takes a value of ``kind`` and gives one of the same kind."""

    name: str
    kind: str
    make: Callable[[Choice, Shape], nn.Module]
    weight: float


BLOCKS: dict[str, Block] = {}


def block(*kinds: str, weight: float = 1.0) -> Callable[[M], M]:
    """Enter the decorated module into the table, once for each of its kinds."""

    def enter(make: M) -> M:
        for kind in kinds:
            name = f"{kind}.{make.__name__}"
            assert name not in BLOCKS, name
            BLOCKS[name] = Block(name, kind, make, weight)
        return make

    return enter


class Choice(random.Random):
    """A source of chance with the words that blocks need."""

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return self.choice(options)

    def need(self, condition: bool) -> None:
        """Give the block up where ``condition`` does not hold."""
        if not condition:
            raise Unfit

    def divisor(self, size: int, low: int = 2) -> int:
        """A divisor of ``size`` of at least ``low``; gives up where there is none."""
        options = [each for each in range(low, size + 1) if size % each == 0]
        self.need(bool(options))
        return self.pick(options)

    def width(self) -> int:
        """A number of channels."""
        return self.pick([4, 6, 6, 8, 8, 9, 10, 12, 12])

    def parts(self, size: int, count: int) -> list[int]:
        """Sizes of ``count`` parts of ``size``, equal ones or not."""
        self.need(size >= 2 * count)
        if size % count == 0 and self.chance(0.4):
            return [size // count] * count
        borders = [0, *sorted(self.sample(range(1, size), count - 1)), size]
        return [b - a for a, b in itertools.pairwise(borders)]

    def act(self) -> Callable[[Tensor], Tensor]:
        """An activation: a module, a function, or one that works in place."""
        return self.pick(_ACTIVATIONS)()


_ACTIVATIONS: tuple[Callable[[], Any], ...] = (
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.GELU,
    lambda: nn.SiLU(inplace=True),
    nn.Hardswish,
    nn.Tanh,
    nn.ELU,
    nn.Mish,
    nn.Softplus,
    nn.Identity,
    lambda: F.leaky_relu,
    lambda: F.relu6,
    lambda: torch.sigmoid,
    lambda: torch.Tensor.relu_,
)
