"""The geometry of products of activations and weights: which numbers of an activation each result is computed from.

A *row* holds the numbers that one result is made of, so that ``y = rows @ matrix.T + bias``. Rows, and the weight as a
matrix, are kept by groups of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "ConvolutionForm", "Form", "Indices", "MatrixForm"]

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.intp]


class Form(Protocol):
    """The geometry of a product: shapes of rows and matrices are ``(..., groups, per group)``."""

    @property
    def groups(self) -> int:
        """Into how many groups inputs and outputs fall."""
        ...

    @property
    def taps(self) -> int:
        """How many features each input position has (the positions of a kernel)."""
        ...

    def matrix(self, weight: Array) -> Array:
        """The weight as ``(groups, outputs, features)``; features of one input position stand together."""
        ...

    def weight(self, matrix: Array, like: Array) -> Array:
        """The opposite of :meth:`matrix`, in the shape of ``like``."""
        ...

    def count(self, y: Array) -> int:
        """How many rows there are for a result ``y``."""
        ...

    def rows(self, x: Array, y: Array, index: Indices) -> Array:
        """The rows with these numbers, ``(len(index), groups, features)``."""
        ...

    def targets(self, y: Array, index: Indices) -> Array:
        """What the rows with these numbers give, ``(len(index), groups, outputs)``."""
        ...


@dataclass(frozen=True, slots=True)
class MatrixForm:
    """``y = x @ w`` along dimension ``x_dim`` of x; ``transposed`` where the weight has its outputs first."""

    transposed: bool
    x_dim: int
    y_dim: int
    scale: float = 1.0
    groups: int = 1
    taps: int = 1

    def matrix(self, weight: Array) -> Array:
        """See :class:`Form`."""
        own: Array = self.scale * (weight if self.transposed else weight.T)[None]
        return own

    def weight(self, matrix: Array, like: Array) -> Array:
        """See :class:`Form`."""
        own: Array = matrix[0] / self.scale
        return (own if self.transposed else own.T).reshape(like.shape)

    def count(self, y: Array) -> int:
        """See :class:`Form`."""
        return int(y.size // max(y.shape[self.y_dim], 1))

    def rows(self, x: Array, y: Array, index: Indices) -> Array:
        """See :class:`Form`."""
        return _spread(x, self.x_dim)[index][:, None]

    def targets(self, y: Array, index: Indices) -> Array:
        """See :class:`Form`."""
        return _spread(y, self.y_dim)[index][:, None]


def _spread(value: Array, dim: int) -> Array:
    """The value as a matrix, ``dim`` last."""
    moved: Array = np.moveaxis(value, dim, -1)
    return moved.reshape(-1, moved.shape[-1])


@dataclass(frozen=True, slots=True)
class ConvolutionForm:
    """A convolution: ``kernel``, ``strides`` and ``dilations`` by dimension of space, ``pads`` before and after each.

    A transposed convolution is one whose input is stretched by zeros and whose kernel is turned round.
    """

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    stretch: tuple[int, ...] | None = None

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return math.prod(self.kernel)

    def matrix(self, weight: Array) -> Array:
        """See :class:`Form`."""
        if self.stretch is None:
            own: Array = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
            return own
        space = tuple(range(2, weight.ndim))
        grouped = np.flip(weight, space).reshape(self.groups, -1, weight.shape[1], self.taps)
        turned: Array = grouped.transpose(0, 2, 1, 3).reshape(self.groups, weight.shape[1], -1)
        return turned

    def weight(self, matrix: Array, like: Array) -> Array:
        """See :class:`Form`."""
        if self.stretch is None:
            return matrix.reshape(like.shape)
        grouped = matrix.reshape(self.groups, like.shape[1], -1, self.taps).transpose(0, 2, 1, 3)
        return np.flip(grouped.reshape(like.shape), tuple(range(2, like.ndim)))

    def count(self, y: Array) -> int:
        """See :class:`Form`."""
        return int(y.size // max(y.shape[1], 1))

    def rows(self, x: Array, y: Array, index: Indices) -> Array:
        """See :class:`Form`."""
        space = y.shape[2:]
        if self.stretch is not None:
            x = self._stretched(x, self.stretch)
        padded = np.pad(x, [(0, 0), (0, 0), *self._pads(x.shape[2:], space)])
        spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True))
        dims = tuple(range(2, x.ndim))
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=dims)
        steps = _spaced((*self.strides, *self.dilations))
        sample, *places = np.unravel_index(index, (len(x), *space))
        chosen: Any = (sample, slice(None), *places)
        rows: Array = windows[steps][chosen]  # (rows, channels, *kernel)
        return rows.reshape(len(index), self.groups, -1)

    def targets(self, y: Array, index: Indices) -> Array:
        """See :class:`Form`."""
        sample, *places = np.unravel_index(index, (len(y), *y.shape[2:]))
        chosen: Any = (sample, slice(None), *places)
        found: Array = y[chosen]
        return found.reshape(len(index), self.groups, -1)

    def _pads(self, space: Sequence[int], out: Sequence[int]) -> list[tuple[int, int]]:
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        needed = [
            max(0, (end - 1) * stride + span - size)
            for end, stride, span, size in zip(out, self.strides, spans, space, strict=True)
        ]
        if self.padding == "SAME_UPPER":
            return [(extra // 2, extra - extra // 2) for extra in needed]
        if self.padding == "SAME_LOWER":
            return [(extra - extra // 2, extra // 2) for extra in needed]
        if isinstance(self.padding, str):
            return [(0, 0)] * len(space)
        # a transposed convolution says its extent by more than pads; what lies behind the end is zero
        return [
            (before, max(after, extra - before)) for (before, after), extra in zip(self.padding, needed, strict=True)
        ]

    @staticmethod
    def _stretched(x: Array, strides: Sequence[int]) -> Array:
        shape = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], strides, strict=True)]
        wide = np.zeros((*x.shape[:2], *shape), x.dtype)
        wide[_spaced(strides)] = x
        return wide


def _spaced(steps: Sequence[int]) -> tuple[slice, ...]:
    """What takes every so many places of the dimensions after the first two."""
    return (slice(None), slice(None), *(slice(None, None, step) for step in steps))
