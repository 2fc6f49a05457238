"""Write out numbers that a model computes from sizes for something other than a shape.

Exporters spell the scale of an attention as the square root of ``Shape(query)[-1]``. It belongs to the function that
the model computes, so it must not follow a cut; as a constant it leaves the heads' width free.
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
    """Replace casts of known sizes to floating point by constants; returns how many were replaced."""
    casts = [node for node in nodes(model) if _leaves_sizes(node)]
    if not casts:
        return 0
    _, elements = read_with_sizes(model)
    count = 0
    for node in casts:
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        assert source.shape is not None
        assert result.dtype is not None
        known = elements.get(source.name or "")
        if known is None or not all(isinstance(element.value, int) for element in known):
            continue
        array = np.asarray([element.value for element in known], dtype=result.dtype.numpy())
        replace_by_constant(model, result, array.reshape(source.shape.numpy()), result.dtype)
        count += 1
    return count


def _leaves_sizes(node: ir.Node) -> bool:
    if node.op_type != "Cast" or node.domain != "":
        return False
    source, result = node.inputs[0], node.outputs[0]
    return (
        source is not None
        and not is_constant(source)
        and source.dtype in _SIZES
        and source.shape is not None
        and source.shape.is_static()
        and result.dtype is not None
        and result.dtype.is_floating_point()
        and bool(result.uses())
        and not result.is_graph_output()
    )
