"""The positions that stay of a stored tensor, copied when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.selection import Positions

__all__ = ["SlicedTensor", "taken"]

BLOCK = 1 << 18
"""Bytes of rows that are copied before their columns are taken: they are then still in the processor's cache."""


class SlicedTensor(ir.LazyTensor):
    """A tensor of which ``kept`` positions of some dimensions stay; evaluated anew each time it is read."""

    def __init__(self, tensor: ir.TensorProtocol, kept: Mapping[int, Positions]) -> None:
        shape = [len(kept[dim]) if dim in kept else size for dim, size in enumerate(tensor.shape.numpy())]
        dtype, name, frozen = tensor.dtype, tensor.name, ir.Shape(shape, frozen=True)
        # The function does not refer to this object, or the collector would have to free each.
        super().__init__(lambda: ir.Tensor(_read(tensor, kept), dtype, name=name), dtype, frozen, name=name)
        self._source, self._kept = tensor, kept

    def numpy(self) -> npt.NDArray[Any]:
        """A contiguous copy of what stays."""
        return _read(self._source, self._kept)


def _read(tensor: ir.TensorProtocol, kept: Mapping[int, Positions]) -> npt.NDArray[Any]:
    array = taken(tensor.numpy(), kept)
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()  # what is left is a copy; pages of the file must not stay mapped until the end
    return array


def taken(array: npt.NDArray[Any], kept: Mapping[int, Positions]) -> npt.NDArray[Any]:
    """A contiguous copy of the ``kept`` positions of some dimensions.

    The outermost cut comes first: of external data only the rows that stay are then read. Where columns go too, it is
    done block by block of rows.
    """
    (first, outer), *rest = sorted(kept.items())
    if first == 0 and rest and array.nbytes > 2 * BLOCK:
        rows = max(1, BLOCK * len(array) // array.nbytes)
        shape = [len(kept[dim]) if dim in kept else size for dim, size in enumerate(array.shape)]
        result = np.empty(shape, dtype=array.dtype)
        for start in range(0, len(outer), rows):
            part = array.take(outer[start : start + rows], axis=0)
            for dim, positions in rest[:-1]:
                part = part.take(positions, axis=dim)
            dim, positions = rest[-1]
            # Only without checks, which positions of a mask do not need, is the result written in place.
            part.take(positions, axis=dim, out=result[start : start + rows], mode="clip")
        return result
    array = array.take(outer, axis=first)
    for dim, positions in rest:
        array = array.take(positions, axis=dim)
    return array
