"""Whether the parameters of a slim model are the kept parts of the original's, bit by bit.

Running two models shows a wrong weight only where the inputs reach it: a channel that a ReLU switches off on every
random input may hold anything. This comparison sees every weight once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.selection import Mask, Selection
from graphprune.structure import Structure

__all__ = ["array_of", "misplaced"]

CHUNK_ELEMENTS = 1 << 22
NUMBERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.STRING})
"""Types of sizes and positions, which a writer renumbers."""


def misplaced(original: ir.Model, slim: ir.Model, structure: Structure, selection: Selection) -> str:
    """The name of a parameter of ``slim`` that is not the kept part of the original's; empty where there is none.

    Parameters are matched by name; indices and sizes, which a writer renumbers, are left out.
    """
    stored = {
        name: value.const_value
        for graph in original.graphs()
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
    for graph in slim.graphs():
        for name, value in graph.initializers.items():
            axes = structure.tensors.get(name)
            if axes is None or name not in stored or stored[name].dtype in NUMBERS:
                continue
            if not any(selection.cuts(axis) for axis in axes):
                continue
            if value.const_value is None or not _is_part(
                value.const_value, stored[name], [selection.mask(axis) for axis in axes]
            ):
                return name
    return ""


def array_of(tensor: ir.TensorProtocol) -> npt.NDArray[Any]:
    """The contents of a tensor; those of external data as a mapping that ends with its last user."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8 and tensor.size:
        return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, tuple(tensor.shape.numpy()))
    return np.ascontiguousarray(tensor.numpy()).reshape(tuple(tensor.shape.numpy()))


def _is_part(part: ir.TensorProtocol, whole: ir.TensorProtocol, masks: list[Mask]) -> bool:
    kept = [np.flatnonzero(mask) for mask in masks]
    if part.dtype != whole.dtype or tuple(part.shape) != tuple(len(index) for index in kept):
        return False
    a, b = array_of(part), array_of(whole)
    return all(_same_bits(a[rows], b[np.ix_(index, *kept[1:])]) for rows, index in _chunks(kept))


def _chunks(kept: list[npt.NDArray[np.intp]]) -> Iterator[tuple[slice, npt.NDArray[np.intp]]]:
    """Rows of the part, and which rows of the whole they are, a few at a time."""
    row = int(np.prod([len(index) for index in kept[1:]], dtype=np.int64))
    step = max(1, CHUNK_ELEMENTS // max(1, row))
    for start in range(0, len(kept[0]), step):
        yield slice(start, start + step), kept[0][start : start + step]


def _same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
