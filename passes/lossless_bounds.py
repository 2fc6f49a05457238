"""Interval arithmetic that holds for what a machine computes: every bound is widened by what rounding can do.

It proves channels dead that are not zero: a channel of tiny weights and negative bias behind bounded activations never
gets past its ReLU. Half precision is too coarse to prove anything with, so it has no bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from graphprune.passes.lossless_facts import Array, Bounds

__all__ = ["Interval", "affine", "bounds_of", "product_bounds", "scaled", "sum_bounds", "widened"]

Interval: TypeAlias = tuple[Bounds, Bounds]

_ROUNDING = 2.0**-20
"""Relative error allowed to one operation, a few times that of float32 functions."""

_UNDERFLOW = 2.0**-126
"""The smallest normal number of float32: results below it may be rounded much, or to zero."""

_SUM_ROUNDING = 2.0**-22
"""Relative error allowed to each summand of a sum, in whatever order it is taken: four units of float32."""

_BLOCK = 1 << 21
"""Weights looked at together."""


def widened(interval: Interval, dtype: ir.DataType) -> Interval:
    """An interval that also holds what rounding makes of it."""
    low, high = interval
    if dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return np.full(low.shape, -np.inf), np.full(high.shape, np.inf)
    below, above = (np.abs(end) * _ROUNDING + np.where(end == 0, 0, _UNDERFLOW) for end in (low, high))
    return low - below, high + above


def affine(interval: Interval, slope: Array, shift: Array, size: Array, dtype: ir.DataType) -> Interval:
    """Bounds of ``slope * x + shift``, where numbers as large as ``size`` are added to make the shift.

    A slope of 0 leaves the shift, however large ``x`` is.
    """
    low, high = interval
    with np.errstate(all="ignore"):
        ends = np.where(slope == 0, 0, slope * low), np.where(slope == 0, 0, slope * high)
    small, large = np.minimum(*ends), np.maximum(*ends)
    slack = size * _ROUNDING
    wide = widened((small, large), dtype)
    return wide[0] + shift - slack, wide[1] + shift + slack


def scaled(interval: Interval, factor: float) -> Interval:
    """Bounds of ``factor * x``."""
    zero = np.float64(0)
    return affine(interval, np.float64(factor), zero, zero, ir.DataType.FLOAT)


def sum_bounds(a: Interval, b: Interval) -> Interval:
    """Bounds of ``a + b``."""
    low, high = a[0] + b[0], a[1] + b[1]
    slack = [_ROUNDING * (np.abs(x) + np.abs(y)) for x, y in zip(a, b, strict=True)]
    return low - slack[0], high + slack[1]


def product_bounds(weight: Array, interval: Interval, groups: int) -> Interval:
    """Bounds of ``sum over columns and taps of weight[row, column, tap] * x[column]``, one for each row.

    Position ``g * columns + c`` of ``interval`` meets column ``c`` of the rows of group ``g``.
    """
    count, columns, taps = weight.shape
    low, high = (bound.reshape(groups, columns) for bound in interval)
    result = np.empty(count), np.empty(count)
    step = max(1, _BLOCK // max(1, columns * taps))
    for start in range(0, count, step):
        part = weight[start : start + step].astype(np.float64)
        positive, negative = np.maximum(part, 0).sum(axis=2), np.minimum(part, 0).sum(axis=2)
        group = np.arange(start, start + len(part)) // (count // groups)
        least = _times(positive, low[group]) + _times(negative, high[group])
        most = _times(positive, high[group]) + _times(negative, low[group])
        size = np.maximum(np.abs(low), np.abs(high))[group]
        slack = max(64, columns * taps) * _SUM_ROUNDING * _times(positive - negative, size).sum(axis=1)
        with np.errstate(invalid="ignore"):
            result[0][start : start + step] = least.sum(axis=1) - slack
            result[1][start : start + step] = most.sum(axis=1) + slack
    unknown = np.isnan(result[0]) | np.isnan(result[1])
    return np.where(unknown, -np.inf, result[0]), np.where(unknown, np.inf, result[1])


def _times(a: Bounds, b: Bounds) -> Bounds:
    """``a * b``, where 0 times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == 0, 0, a * b)


def bounds_of(op: str, operands: Sequence[Interval], dtype: ir.DataType) -> Interval | None:
    """Bounds of an element-wise operator's result; None where nothing is known about it."""
    rule = _RULES.get(op.removeprefix("onnx."))
    if rule is None:
        return None
    with np.errstate(all="ignore"):
        low, high = rule(operands)
    unknown = np.isnan(low) | np.isnan(high)
    low, high = np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
    return (low, high) if op in _NO_ROUNDING else widened((low, high), dtype)


def _relu(x: Sequence[Interval]) -> Interval:
    return np.maximum(x[0][0], 0), np.maximum(x[0][1], 0)


def _between(least: float, most: float) -> Callable[[Sequence[Interval]], Interval]:
    return lambda x: (np.full(x[0][0].shape, least), np.full(x[0][0].shape, most))


def _add(x: Sequence[Interval]) -> Interval:
    return x[0][0] + x[1][0], x[0][1] + x[1][1]


def _subtract(x: Sequence[Interval]) -> Interval:
    return x[0][0] - x[1][1], x[0][1] - x[1][0]


def _multiply(x: Sequence[Interval]) -> Interval:
    ends = [_times(a, b) for a in x[0] for b in x[1]]
    return np.minimum.reduce(ends), np.maximum.reduce(ends)


def _divide(x: Sequence[Interval]) -> Interval:
    low, high = x[1]
    apart = (low > 0) | (high < 0)
    ends = [a / b for a in x[0] for b in x[1]]
    return np.where(apart, np.minimum.reduce(ends), -np.inf), np.where(apart, np.maximum.reduce(ends), np.inf)


_NO_ROUNDING = frozenset({"onnx.Relu", "onnx.Max", "onnx.Min", "onnx.Neg"})

_RULES: dict[str, Callable[[Sequence[Interval]], Interval]] = {
    "Relu": _relu,
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Neg": lambda x: (-x[0][1], -x[0][0]),
    "Max": lambda x: (np.maximum.reduce([a for a, _ in x]), np.maximum.reduce([b for _, b in x])),
    "Min": lambda x: (np.minimum.reduce([a for a, _ in x]), np.minimum.reduce([b for _, b in x])),
    "Sigmoid": _between(0, 1),
    "HardSigmoid": _between(0, 1),
    "Tanh": _between(-1, 1),
    "Softsign": _between(-1, 1),
    "Erf": _between(-1, 1),
    "Sin": _between(-1, 1),
    "Cos": _between(-1, 1),
    "Exp": _between(0, np.inf),
    "Softplus": _between(0, np.inf),
    "Sqrt": _between(0, np.inf),
    "Abs": lambda x: (np.zeros(x[0][0].shape), np.maximum(np.abs(x[0][0]), np.abs(x[0][1]))),
    "HardSwish": lambda x: (np.full(x[0][0].shape, -0.375), np.maximum(x[0][1], 0)),
}
