"""Contents of the integer tensors that ONNX graphs compute shapes with, element by element, as far as they are known.

An element is a number, the name of a symbolic dimension (which is never negative), or unknown. Operators outside the
table, and tensors that are too large to be shapes, are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.frontends.element_arithmetic import POINTWISE, UNKNOWN, arithmetic, known
from graphprune.frontends.onnx_attributes import integer, integers, tensor

__all__ = ["Contents", "Elements"]

Elements: TypeAlias = npt.NDArray[Any]
"""An array of objects, each a :data:`graphprune.frontends.element_arithmetic.Element`."""

_LIMIT = 4096
"""Elements above which an integer tensor is data, not shape arithmetic."""

_FOLLOWED = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, None})

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})

Operands: TypeAlias = "list[Elements | None]"


class Contents:
    """What is known about integer and boolean tensors; visit the nodes in order."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, Elements] = {}

    def of(self, value: ir.Value | None) -> Elements | None:
        """Return the elements of ``value``; None when it is no small integer tensor of known size."""
        if value is None:
            return None
        if value not in self._known and (found := _given(value)) is not None:
            self._known[value] = found
        return self._known.get(value)

    def visit(self, node: ir.Node) -> Elements | None:
        """Work out, keep and return what ``node`` computes; its inputs need shapes where the node reads them."""
        function = _FUNCTIONS.get(node.op_type) if node.domain == "" else None
        if function is None or len(node.outputs) != 1 or node.outputs[0].dtype not in _FOLLOWED:
            return None
        try:
            found = function(node, [self.of(value) for value in node.inputs])
        except (ValueError, IndexError, TypeError, OverflowError):
            return None
        if found is None or found.size > _LIMIT:
            return None
        self._known[node.outputs[0]] = found
        return found


def _given(value: ir.Value) -> Elements | None:
    """Return what an initializer holds, or unknown elements for another integer vector of known length."""
    if value.dtype not in _INTEGERS:
        return None
    tensor = value.const_value
    if value.is_initializer() and tensor is not None and not value.is_graph_input():
        return _objects(tensor.numpy()) if tensor.size <= _LIMIT else None
    if value.shape is None or len(value.shape) > 1 or not value.shape.is_static():
        return None
    extents = value.shape.numpy()
    return np.full(extents, UNKNOWN, dtype=object) if int(np.prod(extents)) <= _LIMIT else None


def _objects(array: npt.NDArray[Any]) -> Elements:
    result = np.empty(array.shape, dtype=object)
    result[...] = array.tolist() if array.ndim else array.item()
    return result


def _dims(value: ir.Value | None) -> Elements | None:
    if value is None or value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else (dim.value or UNKNOWN) for dim in value.shape]
    return np.array([*dims, None], dtype=object)[:-1]


def _ints(array: Elements | None) -> list[int] | None:
    """Return the elements of ``array`` if all are numbers."""
    return None if array is None or not known(array) else [int(element) for element in array.reshape(-1)]


def _argument(node: ir.Node, operands: Operands, position: int, name: str) -> list[int] | None:
    """Return an integer list that is an input in newer operator sets and an attribute in older ones."""
    if position < len(node.inputs) and node.inputs[position] is not None:
        numbers = _ints(operands[position])
        if numbers is None:
            raise ValueError(name)
        return numbers
    return integers(node, name)


def _shape(node: ir.Node, operands: Operands) -> Elements | None:
    dims = _dims(node.inputs[0])
    if dims is None:
        return None
    return dims[integer(node, "start", 0) : integer(node, "end", len(dims))]


def _size(node: ir.Node, operands: Operands) -> Elements | None:
    dims = _dims(node.inputs[0])
    return None if dims is None else np.array(arithmetic("Product", *dims), dtype=object)


def _gather(node: ir.Node, operands: Operands) -> Elements | None:
    data, index = operands
    if data is None or index is None or not known(index):
        return None
    return np.asarray(np.take(data, index.astype(np.int64), axis=integer(node, "axis", 0)), dtype=object)


def _slice(node: ir.Node, operands: Operands) -> Elements | None:
    data = operands[0]
    starts, ends = _argument(node, operands, 1, "starts"), _argument(node, operands, 2, "ends")
    if data is None or starts is None or ends is None:
        return None
    axes = _argument(node, operands, 3, "axes") or list(range(len(starts)))
    steps = _argument(node, operands, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        extent = data.shape[axis]
        if step > 0:
            chosen = range(*slice(start, end, step).indices(extent))
        else:
            first = min(max(start + extent if start < 0 else start, -1), extent - 1)
            last = max(end + extent if end < 0 else end, -1)
            chosen = range(first, last, step)
        data = np.take(data, list(chosen), axis=axis)
    return data


def _concat(node: ir.Node, operands: Operands) -> Elements | None:
    parts = [part for part in operands if part is not None]
    if len(parts) != len(operands):
        return None
    return np.concatenate(parts, axis=integer(node, "axis", 0))


def _unsqueeze(node: ir.Node, operands: Operands) -> Elements | None:
    axes = _argument(node, operands, 1, "axes")
    return None if operands[0] is None or axes is None else np.expand_dims(operands[0], tuple(axes))


def _squeeze(node: ir.Node, operands: Operands) -> Elements | None:
    axes = _argument(node, operands, 1, "axes")
    if operands[0] is None:
        return None
    return _as_object(np.squeeze(operands[0], None if axes is None else tuple(axes)))


def _reshape(node: ir.Node, operands: Operands) -> Elements | None:
    target = _ints(operands[1])
    if operands[0] is None or target is None or 0 in target:
        return None
    return operands[0].reshape(target)


def _transpose(node: ir.Node, operands: Operands) -> Elements | None:
    return None if operands[0] is None else np.transpose(operands[0], integers(node, "perm"))


def _same(node: ir.Node, operands: Operands) -> Elements | None:
    return operands[0]


def _cast(node: ir.Node, operands: Operands) -> Elements | None:
    """Follow casts between integers and booleans."""
    to = ir.DataType(integer(node, "to", 0))
    if operands[0] is None or to not in _INTEGERS:
        return None
    convert = bool if to == ir.DataType.BOOL else int
    result = np.empty(operands[0].shape, dtype=object)
    for index, element in np.ndenumerate(operands[0]):
        symbolic = UNKNOWN if convert is bool else element
        result[index] = convert(element) if isinstance(element, (int, bool)) else symbolic
    return result


def _fill(node: ir.Node, operands: Operands) -> Elements | None:
    shape = _ints(operands[0])
    filler = tensor(node, "value")
    if shape is None or math.prod(shape) > _LIMIT or filler is None or filler.dtype not in _INTEGERS:
        return None
    return np.full(shape, filler.numpy().item(), dtype=object)


def _expand(node: ir.Node, operands: Operands) -> Elements | None:
    target = _ints(operands[1])
    if operands[0] is None or target is None:
        return None
    return np.broadcast_to(operands[0], np.broadcast_shapes(operands[0].shape, tuple(target)))


def _range(node: ir.Node, operands: Operands) -> Elements | None:
    limits = [_ints(operand) for operand in operands]
    if any(limit is None or len(limit) != 1 for limit in limits):
        return None
    numbers = range(*(limit[0] for limit in limits if limit is not None))
    return np.array([*numbers, None], dtype=object)[:-1] if len(numbers) <= _LIMIT else None


def _where(node: ir.Node, operands: Operands) -> Elements | None:
    condition, yes, no = operands
    if condition is None or yes is None or no is None:
        return None
    return _elementwise("Where", condition, yes, no)


def _product(node: ir.Node, operands: Operands) -> Elements | None:
    if operands[0] is None or operands[0].ndim != 1 or len(node.inputs) > 1:
        return None
    result = np.array(arithmetic("Product", *operands[0]), dtype=object)
    return result.reshape(1) if integer(node, "keepdims", 1) else result


def _pointwise(node: ir.Node, operands: Operands) -> Elements | None:
    parts = [part for part in operands if part is not None]
    return _elementwise(node.op_type, *parts) if len(parts) == len(operands) else None


def _elementwise(name: str, *operands: Elements) -> Elements:
    arrays = np.broadcast_arrays(*operands)
    if arrays[0].size > _LIMIT:
        raise ValueError("too large to be a shape")
    result = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(*arrays[0].shape):
        result[index] = arithmetic(name, *(array[index] for array in arrays))
    return result


def _as_object(array: npt.NDArray[Any]) -> Elements:
    return np.asarray(array, dtype=object)


_FUNCTIONS: dict[str, Callable[[ir.Node, Operands], Elements | None]] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _same,
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
    **dict.fromkeys(POINTWISE, _pointwise),
}
