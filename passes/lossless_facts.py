"""What holds for a tensor whatever the input is: which slices are constants, and which are equal to each other.

A :class:`Fact` has an array of the tensor's rank. In a dimension it has the tensor's size, or 1 where the statement is
about all positions of that dimension together; so ``[1, C, 1, 1]`` speaks of channels. Movement and broadcasting of
facts are then movement and broadcasting of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.sizes import Size

__all__ = ["Array", "Fact", "Labels", "along", "constant", "expand", "fact", "number", "opaque", "rows"]

Array: TypeAlias = npt.NDArray[Any]
Labels: TypeAlias = npt.NDArray[np.int64]

MAX_ENTRIES = 1 << 22
"""A fact with more entries is forgotten."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Three arrays of one shape.

    Where ``known``, all elements of the slice equal ``value``, for every input. Slices of equal ``label`` are equal
    to each other for every input; labels mean nothing outside their tensor.
    """

    label: Labels
    known: npt.NDArray[np.bool_]
    value: Array

    @property
    def empty(self) -> bool:
        """Whether nothing is known: no constant, and every slice for itself."""
        return not self.known.any() and len(np.unique(self.label)) == self.label.size

    def map(self, move: Any) -> Fact:
        """The fact whose three arrays are ``move`` of this one's."""
        return Fact(move(self.label), move(self.known), move(self.value))


def opaque(rank: int, dtype: npt.DTypeLike = np.float32) -> Fact:
    """The fact that says nothing."""
    shape = (1,) * rank
    return Fact(np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, dtype))


def fact(
    label: Array, known: Array | None = None, value: Array | None = None, dtype: npt.DTypeLike = np.float32
) -> Fact:
    """A fact whose constants share a label exactly if they are equal."""
    if known is None or value is None or not known.any():
        return Fact(number(label), np.zeros(label.shape, np.bool_), np.zeros(label.shape, dtype))
    value = np.where(known, value, np.zeros((), value.dtype))
    return Fact(number(known, np.where(known, 0, label), value), known, value)


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
    label, known, value = wide.label, wide.known, wide.value
    for dim, wanted in enumerate(shape):
        if label.shape[dim] == wanted:
            continue
        repeated = dim < lead or sizes[dim - lead] == 1
        places = np.arange(wanted).reshape([-1] + [1] * (len(shape) - 1 - dim))
        label = np.repeat(label, wanted, dim) if repeated else label * wanted + places
        known, value = np.repeat(known, wanted, dim), np.repeat(value, wanted, dim)
    return fact(label, known, value, value.dtype)


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
    return fact(rows(lines.label), same, lines.value[:, 0], lines.value.dtype)


def _bits(array: Array) -> Array:
    if array.dtype.kind in "iub":
        return array
    return np.ascontiguousarray(array).view(np.dtype(f"u{array.dtype.itemsize}"))
