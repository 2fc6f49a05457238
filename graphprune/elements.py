"""Elements of small integer tensors that spell shapes: known as far as possible, and able to follow a cut.

A host computes shapes from other shapes. Each element is a number where that is known, and remembers how it came
about, so that its value *after* a cut can be foretold and compared with what the slim tensor needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from graphprune.axes import Axis
from graphprune.selection import Selection
from graphprune.sizes import Size, Symbolic, divide

__all__ = ["UNKNOWN", "Element", "computed", "extent", "literal"]


@dataclass(frozen=True, slots=True)
class Element:
    """One number: ``value`` before the cut (None: unknown), ``after`` tells it under a selection."""

    value: Size | None
    after: Callable[[Selection], Size | None]
    axis: Axis | None = None
    """The axis whose extent this is, where it is read off a shape."""
    depends: tuple[Axis, ...] = ()
    """All axes whose extents it was computed from."""
    literal: bool = False
    """Whether it is spelled in the model rather than computed."""


UNKNOWN = Element(None, lambda _: None)


@lru_cache(4096)
def literal(value: int) -> Element:
    """A number that stays what it is."""
    return Element(value, lambda _: value, literal=True)


def extent(axis: Axis) -> Element:
    """The extent of an axis, which follows every cut of it."""
    return Element(axis.size, lambda selection: selection.count(axis), axis, (axis,))


def _add(a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if a == 0 else a if b == 0 else None


def _subtract(a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return 0 if a == b else a if b == 0 else None


def _divide(a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        return int(a / b) if b else None  # ONNX truncates towards zero
    return divide(a, b)


_ARITHMETIC: dict[str, Callable[[Size, Size], Size | None]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Max": lambda a, b: max(a, b) if isinstance(a, int) and isinstance(b, int) else None,
    "Min": lambda a, b: min(a, b) if isinstance(a, int) and isinstance(b, int) else None,
}


def computed(op: str, a: Element, b: Element) -> Element:
    """``a op b`` for Add, Sub, Mul, Div, Max, Min."""
    function = _ARITHMETIC[op]

    def apply(x: Size | None, y: Size | None) -> Size | None:
        return None if x is None or y is None else function(x, y)

    value = apply(a.value, b.value)
    if isinstance(value, Symbolic) and value.coefficient == 0:
        value = 0
    depends = tuple(dict.fromkeys((*a.depends, *b.depends)))
    return Element(value, lambda selection: apply(a.after(selection), b.after(selection)), depends=depends)
