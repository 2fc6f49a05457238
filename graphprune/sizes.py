"""Sizes of axes: an ``int``, or a monomial over symbolic dimensions such as ``64*batch*height``.

Reshape splits and merges dimensions, so the only arithmetic that sizes need is multiplication and exact division.
Sums (a padded image, a grown cache) become a fresh symbol: nothing is ever assumed about them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

__all__ = ["Size", "Symbolic", "divide", "fresh", "is_fresh", "named", "product_size", "symbol"]


@dataclass(frozen=True, slots=True)
class Symbolic:
    """``coefficient`` times the product of ``symbols`` (sorted names, repeated for powers)."""

    coefficient: int
    symbols: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        if self is other:  # a name always gives the same object, so this is how most comparisons end
            return True
        if not isinstance(other, Symbolic):
            return NotImplemented
        return self.coefficient == other.coefficient and self.symbols == other.symbols

    def __mul__(self, other: Size) -> Symbolic:
        if isinstance(other, int):
            return Symbolic(self.coefficient * other, self.symbols)
        return Symbolic(self.coefficient * other.coefficient, tuple(sorted(self.symbols + other.symbols)))

    __rmul__ = __mul__

    def __str__(self) -> str:
        factors = [str(self.coefficient)] if self.coefficient != 1 else []
        return "*".join([*factors, *self.symbols])


Size: TypeAlias = int | Symbolic

_PRODUCT = re.compile(r"\w+( ?\* ?\w+)+")


@lru_cache(4096)
def named(name: str) -> Size:
    """The size of a dimension that a host calls ``name``; exporters spell products.

    >>> str(named("4*batch")), str(named("sequence + 1"))
    ('4*batch', 'sequence + 1')
    """
    if not _PRODUCT.fullmatch(name):
        return symbol(name)
    factors = (factor.strip() for factor in name.split("*"))
    return product_size(int(factor) if factor.isdigit() else symbol(factor) for factor in factors)


_fresh = itertools.count()


def symbol(name: str) -> Symbolic:
    """The size of a symbolic dimension called ``name``; equal names are equal sizes."""
    return Symbolic(1, (name,))


def fresh() -> Symbolic:
    """A size that nothing is known about."""
    return symbol(f"?{next(_fresh)}")


def is_fresh(size: Symbolic) -> bool:
    """Whether nothing is known about some factor of ``size``."""
    return any(name.startswith("?") for name in size.symbols)


def product_size(sizes: Iterable[Size]) -> Size:
    """The product of sizes; 1 for none."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def divide(a: Size, b: Size) -> Size | None:
    """``a / b`` where it is exact, else None.

    >>> divide(12, 4), divide(12, 5), str(divide(6 * symbol("n"), 3))
    (3, None, '2*n')
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    top = a if isinstance(a, Symbolic) else Symbolic(a, ())
    bottom = b if isinstance(b, Symbolic) else Symbolic(b, ())
    if not bottom.coefficient or top.coefficient % bottom.coefficient:
        return None
    remaining = Counter(top.symbols)
    remaining.subtract(bottom.symbols)
    if min(remaining.values(), default=0) < 0:
        return None
    coefficient = top.coefficient // bottom.coefficient
    symbols = tuple(sorted(remaining.elements()))
    return Symbolic(coefficient, symbols) if symbols else coefficient
