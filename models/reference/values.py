"""Named tensors with shapes, and the arithmetic of shapes that building needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

__all__ = ["Array", "Dim", "Shape", "Value", "broadcast", "window"]

Dim = int | str
Shape = tuple[Dim, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Value:
    """A named tensor of the graph and its shape."""

    name: str
    shape: Shape

    def __getitem__(self, axis: int) -> int:
        """Return the static size of ``axis``; a symbolic one is an error of the caller."""
        size = self.shape[axis]
        if not isinstance(size, int):
            raise TypeError(f"dimension {axis} of {self.name!r} is symbolic ({size!r}); only static sizes work here")
        return size


def window(size: Dim, kernel: int, stride: int, padding: int, dilation: int = 1) -> Dim:
    """Return the extent that a sliding window leaves of ``size``; a symbolic size stays symbolic."""
    lost = 2 * padding - dilation * (kernel - 1) - 1
    if isinstance(size, int):
        return (size + lost) // stride + 1
    return size if stride == 1 and lost == -1 else f"{size}_{kernel}{stride}{padding}{dilation}"


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that NumPy's broadcasting gives; sizes that are symbolic are taken to fit."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((d for d in column if d != 1), 1) for column in zip(*padded, strict=True))
