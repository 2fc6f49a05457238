"""What the lossless pass needs to know about the numbers in a weight, found block by block.

A weight is seen as a matrix of *rows* (what it makes) and *columns* (what it reads), each entry holding the taps of a
kernel. Equal rows are found by a multilinear hash of their bits and then compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.passes.lossless_facts import Array, Labels

__all__ = ["Kernel", "read_kernel", "sum_columns"]

_BLOCK = 16 << 20
"""Bytes looked at together."""

Unsigned = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Kernel:
    """``rows[r]``: a number that rows share exactly if their bits are equal. ``zero[r, c]``: all taps are 0."""

    rows: Labels
    zero: npt.NDArray[np.bool_]


def read_kernel(tensor: ir.TensorProtocol, row_dim: int, column_dim: int) -> Kernel:
    """Read a weight whose rows and columns are its first two dimensions, in either order, or 1 and 2 of a batch of 1.

    Raises:
        ValueError: other dimensions.
    """
    array = tensor.numpy()
    if {row_dim, column_dim} == {1, 2} and array.shape[0] == 1:
        array, row_dim, column_dim = array[0], row_dim - 1, column_dim - 1
    if {row_dim, column_dim} != {0, 1}:
        raise ValueError("rows and columns are not the leading dimensions")
    shape = (array.shape[row_dim], array.shape[column_dim])
    if array.size and not any(array.strides):
        empty = bool(array[(0,) * array.ndim] == 0)
        return Kernel(np.zeros(shape[0], np.int64), np.broadcast_to(np.bool_(empty), shape))
    matrix = array.reshape(*array.shape[:2], -1)
    kernel = _read(matrix, row_dim)
    if isinstance(tensor, ir.ExternalTensor):
        del array, matrix
        tensor.release()
    return kernel


def _read(matrix: Array, row_dim: int) -> Kernel:
    outer, inner, taps = matrix.shape
    zero = np.zeros((outer, inner), np.bool_)
    hashes = np.zeros(matrix.shape[row_dim], np.uint64)
    random = np.random.default_rng(0)
    factors = _odd(random, (inner, taps)) if row_dim == 0 else None
    for start, stop in _blocks(matrix):
        part = matrix[start:stop]
        zero[start:stop] = (part == 0).all(axis=2)
        bits = np.ascontiguousarray(part).view(np.dtype(f"u{part.dtype.itemsize}")).astype(np.uint64)
        if factors is not None:
            hashes[start:stop] = (bits * factors).sum(axis=(1, 2), dtype=np.uint64)
        else:
            hashes += (bits * _odd(random, (stop - start, 1, taps))).sum(axis=(0, 2), dtype=np.uint64)
    return Kernel(_compared(np.moveaxis(matrix, row_dim, 0), hashes), zero if row_dim == 0 else zero.T)


def _odd(random: np.random.Generator, shape: tuple[int, ...]) -> Unsigned:
    numbers: Unsigned = random.integers(0, 1 << 63, shape, dtype=np.uint64)
    numbers |= np.uint64(1)
    return numbers


def _blocks(matrix: Array) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK // max(1, 8 * matrix.shape[1] * matrix.shape[2]))
    for start in range(0, len(matrix), step):
        yield start, min(start + step, len(matrix))


def _compared(lines: Array, hashes: Unsigned) -> Labels:
    """Numbers of equal lines, given that unequal hashes mean unequal lines."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    labels = first[inverse.reshape(-1)].astype(np.int64)
    for index in np.flatnonzero(labels != np.arange(len(labels))):
        if lines[index].tobytes() != lines[labels[index]].tobytes():
            labels[index] = index
    return labels


def sum_columns(
    array: Array, dim: int, target: npt.NDArray[np.intp], factor: npt.NDArray[np.float64] | None = None
) -> Array:
    """``array`` with its positions of ``dim`` summed by ``target`` (-1: left out), in order of target, in float64.

    ``factor`` is what each position is multiplied by beforehand.
    """
    alive = np.flatnonzero(target >= 0)
    order = alive[np.argsort(target[alive], kind="stable")]
    sorted_target = target[order]
    starts = np.flatnonzero(np.diff(sorted_target, prepend=-1))
    moved: Any = np.moveaxis(array, dim, -1)
    lines = moved.reshape(-1, moved.shape[-1])
    result = np.empty((len(lines), len(starts)), array.dtype)
    step = max(1, _BLOCK // max(1, 8 * lines.shape[1]))
    for start in range(0, len(lines), step):
        part = np.take(lines[start : start + step], order, axis=1).astype(np.float64)
        part = part if factor is None else part * factor[order]
        result[start : start + step] = np.add.reduceat(part, starts, axis=1).astype(array.dtype)
    return np.ascontiguousarray(np.moveaxis(result.reshape(*moved.shape[:-1], len(starts)), -1, dim))
