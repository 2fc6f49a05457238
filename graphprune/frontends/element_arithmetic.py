"""Arithmetic on the elements of shape tensors: numbers, names of symbolic dimensions, or unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing as npt

__all__ = ["POINTWISE", "UNKNOWN", "Element", "arithmetic", "known"]

UNKNOWN = None
"""An element of which nothing is known."""

Element: TypeAlias = "int | bool | str | None"
"""A number, the name of a symbolic dimension (never negative), or :data:`UNKNOWN`."""


def known(array: npt.NDArray[Any]) -> bool:
    """Return whether every element is a number."""
    return all(isinstance(element, (int, bool)) for element in array.reshape(-1))


def arithmetic(name: str, *operands: Element) -> Element:
    """Return what operator ``name`` makes of single elements, UNKNOWN where that depends on a symbolic dimension.

    >>> arithmetic("Mul", "N", 1), arithmetic("Equal", "N", -1), arithmetic("Add", "N", 2)
    ('N', False, None)
    """
    if name == "Where":
        condition, yes, no = operands
        if isinstance(condition, bool):
            return yes if condition else no
        return yes if yes == no else UNKNOWN
    if name == "Product":
        return _product(*operands)
    if all(isinstance(operand, (int, bool)) for operand in operands):
        return _NUMBERS[name](*operands)
    return _symbolic(name, *operands)


def _product(*operands: Element) -> Element:
    if any(operand == 0 and operand is not UNKNOWN for operand in operands):
        return 0
    rest = [operand for operand in operands if operand != 1]
    if all(isinstance(operand, int) for operand in rest):
        return math.prod(operand for operand in rest if isinstance(operand, int))
    return rest[0] if len(rest) == 1 else UNKNOWN


def _symbolic(name: str, *operands: Element) -> Element:
    """Use that a dimension equals itself, is never negative, and has neutral partners."""
    if len(operands) != 2:
        return UNKNOWN
    a, b = operands
    if name == "Mul":
        return _product(a, b)
    if name == "Add" and 0 in (a, b) and a is not UNKNOWN and b is not UNKNOWN:
        return a if b == 0 else b
    if (name == "Sub" and b == 0) or (name == "Div" and b == 1):
        return a
    if isinstance(a, str) and a == b:
        return _OF_EQUALS.get(name, a if name in ("Min", "Max") else UNKNOWN)
    if isinstance(a, str) and isinstance(b, int) and b < 0:
        return _DIM_AND_NEGATIVE.get(name, UNKNOWN)
    if isinstance(b, str) and isinstance(a, int) and a < 0:
        return _NEGATIVE_AND_DIM.get(name, UNKNOWN)
    if name in ("And", "Or") and (name == "Or") in (a, b):
        return name == "Or"
    return UNKNOWN


_OF_EQUALS: dict[str, int | bool] = {
    "Sub": 0, "Equal": True, "GreaterOrEqual": True, "LessOrEqual": True, "Greater": False, "Less": False,
}  # fmt: skip

_DIM_AND_NEGATIVE: dict[str, bool] = {
    "Equal": False, "Greater": True, "GreaterOrEqual": True, "Less": False, "LessOrEqual": False,
}  # fmt: skip

_NEGATIVE_AND_DIM: dict[str, bool] = {
    "Equal": False, "Greater": False, "GreaterOrEqual": False, "Less": True, "LessOrEqual": True,
}  # fmt: skip


def _divide(a: int, b: int) -> int | None:
    """Divide towards zero, as ONNX does with integers."""
    if b == 0:
        return UNKNOWN
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_NUMBERS: dict[str, Callable[..., Element]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Mod": lambda a, b: UNKNOWN if a < 0 or b <= 0 else a % b,
    "Neg": lambda a: -a,
    "Abs": abs,
    "Min": min,
    "Max": max,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "Less": lambda a, b: a < b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "LessOrEqual": lambda a, b: a <= b,
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Not": lambda a: not a,
}

POINTWISE = tuple(_NUMBERS)
"""The element-wise operators that :func:`arithmetic` knows."""
