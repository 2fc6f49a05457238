"""Sizes of the dimensions of an ONNX value, as the graph states them."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.sizes import Size, fresh, named

__all__ = ["sizes_of"]


def sizes_of(value: ir.Value) -> tuple[Size, ...] | None:
    """Sizes of a value's dimensions as the graph states them; a dimension nobody named is a fresh symbol."""
    shape = value.shape
    if shape is None:
        return None
    return tuple([dim if type(dim) is int and dim >= 0 else _size(dim) for dim in shape])


def _size(dim: int | ir.SymbolicDim) -> Size:
    if isinstance(dim, int):
        return dim if dim >= 0 else fresh()
    return named(str(dim.value)) if dim.value else fresh()
