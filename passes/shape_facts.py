"""Replace what is statically known about shapes by constants, so that only truly symbolic arithmetic remains."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.element_arithmetic import known
from graphprune.frontends.onnx_walk import nodes
from graphprune.frontends.shape_contents import Contents
from graphprune.passes.tensors import replace_by_constant

__all__ = ["fix_static_shapes"]


def fix_static_shapes(model: ir.Model) -> int:
    """Replace every integer or boolean value that the known dimensions determine; returns how many.

    Values need the shapes of :func:`graphprune.frontends.onnx_shapes.infer_shapes`. Graph outputs stay computed.
    """
    contents = Contents()
    found: list[tuple[ir.Value, ir.DataType, np.ndarray]] = []
    for node in nodes(model):
        elements = contents.visit(node)
        if elements is None or not known(elements):
            continue
        output = node.outputs[0]
        if output.dtype is not None and output.uses() and not output.is_graph_output():
            found.append((output, output.dtype, np.asarray(elements, dtype=output.dtype.numpy())))
    for output, dtype, array in found:
        replace_by_constant(model, output, array, dtype)
    return len(found)
