"""What holds for a tensor whatever the input is: slices that are constants, equal to each other, or within bounds.

A :class:`Fact` has an array of the tensor's rank. In a dimension it has the tensor's size, or 1 where the statement is
about all positions of that dimension together; so ``[1, C, 1, 1]`` speaks of channels. Movement and broadcasting of
facts are then movement and broadcasting of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.sizes import Size

__all__ = ["Array", "Bounds", "Fact", "Labels", "along", "constant", "expand", "fact", "number", "opaque", "rows"]

Array: TypeAlias = npt.NDArray[Any]
Bounds: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.int64]

MAX_ENTRIES = 1 << 22
"""A fact with more entries is forgotten."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Arrays of one shape.

    Where ``known``, all elements of the slice equal ``value``, for every input. Slices of equal ``label`` are equal
    to each other for every input; labels mean nothing outside their tensor. No element is below ``low`` or above
    ``high``.
    """

    label: Labels
    known: npt.NDArray[np.bool_]
    value: Array
    low: Bounds
    high: Bounds

    def map(self, move: Any) -> Fact:
        """The fact whose arrays are ``move`` of this one's."""
        return Fact(move(self.label), move(self.known), move(self.value), move(self.low), move(self.high))


def opaque(rank: int, dtype: npt.DTypeLike = np.float32) -> Fact:
    """The fact that says nothing."""
    return fact(np.zeros((1,) * rank, np.int64), dtype=dtype)


def fact(
    label: Array,
    known: Array | None = None,
    value: Array | None = None,
    bounds: tuple[Array, Array] | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> Fact:
    """A fact whose constants share a label exactly if they are equal; equal bounds make a constant."""
    low, high = bounds if bounds is not None else (np.full(label.shape, -np.inf), np.full(label.shape, np.inf))
    value = np.zeros(label.shape, dtype) if value is None else value
    pinched = (low == high) & np.isfinite(low)
    if known is None:
        known = np.zeros(label.shape, np.bool_)
    if not (known.any() or pinched.any()):
        return Fact(number(label), known, np.zeros(label.shape, value.dtype), low, high)
    value = np.where(known, value, np.where(pinched, low, 0).astype(value.dtype))
    known = known | pinched
    exact = value.astype(np.float64)
    low, high = np.where(known, exact, low), np.where(known, exact, high)
    return Fact(number(known, np.where(known, 0, label), value), known, value, low, high)


def constant(array: Array) -> Fact:
    """The fact of a tensor whose contents are given."""
    return fact(np.zeros(array.shape, np.int64), np.ones(array.shape, np.bool_), array)


def number(*keys: Array) -> Labels:
    """Numbers for the places of equally shaped arrays: equal exactly where all of them are."""
    result = np.zeros(keys[0].shape, np.int64)
    for key in keys:
        _, inverse = np.unique(_bits(key).reshape(-1), return_inverse=True)
        combined = result.reshape(-1) * (int(inverse.max(initial=0)) + 1) + inverse.reshape(-1)
        result = np.unique(combined, return_inverse=True)[1].reshape(keys[0].shape).astype(np.int64)
    return result


def rows(matrix: Labels) -> Labels:
    """Numbers for the rows of a matrix: equal exactly where the rows are."""
    if matrix.shape[1] == 0:
        return np.zeros(len(matrix), np.int64)
    _, inverse = np.unique(matrix, axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def expand(source: Fact, sizes: Sequence[Size], shape: Sequence[int]) -> Fact:
    """The fact with the entries of ``shape``, of a tensor of ``sizes``; aligned at the last dimension.

    A dimension of size 1 is repeated; in any other, slices that were spoken of together become distinct.
    """
    lead = len(shape) - source.label.ndim
    wide = source.map(lambda a: a.reshape((1,) * lead + a.shape))
    for dim, wanted in enumerate(shape):
        label = wide.label
        if label.shape[dim] == wanted:
            continue
        repeated = dim < lead or sizes[dim - lead] == 1
        places = np.arange(wanted).reshape([-1] + [1] * (len(shape) - 1 - dim))
        wide = wide.map(lambda a, wanted=wanted, dim=dim: np.repeat(a, wanted, dim))
        wide = wide if repeated else replace(wide, label=label * wanted + places)
    return fact(wide.label, wide.known, wide.value, (wide.low, wide.high))


def along(source: Fact, sizes: Sequence[Size], dim: int) -> Fact:
    """The fact about the positions of one dimension of known size."""
    size = sizes[dim]
    assert isinstance(size, int)
    if source.label.shape[dim] != size:
        shape = list(source.label.shape)
        shape[dim] = size
        source = expand(source, sizes, shape)
    lines = source.map(lambda a: np.moveaxis(a, dim, 0).reshape(size, -1))
    if lines.label.shape[1] == 1:
        return lines.map(lambda a: a[:, 0])
    same = lines.known.all(axis=1) & (lines.value == lines.value[:, :1]).all(axis=1)
    bounds = lines.low.min(axis=1), lines.high.max(axis=1)
    return fact(rows(lines.label), same, lines.value[:, 0], bounds)


def _bits(array: Array) -> Array:
    if array.dtype.kind in "iub":
        return array
    return np.ascontiguousarray(array).view(np.dtype(f"u{array.dtype.itemsize}"))
