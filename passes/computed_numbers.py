"""Write out numbers that a model computes from sizes for something other than a shape.

Exporters spell the scale of an attention as the square root of ``Shape(query)[-1]``. It belongs to the function that
the model computes, so it must not follow a cut; as a constant it leaves the heads' width free. A number of windows is
the quotient of two symbolic sizes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_reader import read_with_sizes
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import is_constant, replace_by_constant

__all__ = ["fix_computed_numbers"]

_SIZES = (ir.DataType.INT64, ir.DataType.INT32)


def fix_computed_numbers(model: ir.Model) -> int:
    """Replace casts of known sizes to floating point, and their known quotients, by constants; returns how many."""
    places = {node.outputs[0]: source for node in nodes(model) if (source := _spelled(node)) is not None}
    if not places:
        return 0
    _, elements = read_with_sizes(model)
    count = 0
    for result, source in places.items():
        assert source.shape is not None
        assert result.dtype is not None
        known = elements.get(source.name or "")
        if known is None or not all(isinstance(element.value, int) for element in known):
            continue
        array = np.asarray([element.value for element in known], dtype=result.dtype.numpy())
        replace_by_constant(model, result, array.reshape(source.shape.numpy()), result.dtype)
        count += 1
    return count


def _spelled(node: ir.Node) -> ir.Value | None:
    """The sizes whose numbers the result of ``node`` has; None for a node of another kind."""
    if node.op_type not in ("Cast", "Div") or node.domain != "":
        return None
    result = node.outputs[0]
    source = node.inputs[0] if node.op_type == "Cast" else result
    if result.dtype is None or not result.uses() or result.is_graph_output():
        return None
    if source is None or is_constant(source) or source.dtype not in _SIZES or source.shape is None:
        return None
    floating = result.dtype.is_floating_point()
    return source if source.shape.is_static() and floating == (node.op_type == "Cast") else None
