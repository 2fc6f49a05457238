"""Write out which dimensions a Squeeze removes that only says: all of size 1.

After a cut to one position it would remove that dimension too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import Names, constant

__all__ = ["write_squeezed_dims"]

OPERAND_SINCE = 13
"""The opset in which the dimensions became an operand."""


def write_squeezed_dims(model: ir.Model) -> int:
    """Give each Squeeze of a tensor of known shape its dimensions; returns how many it gave."""
    opset = model.opset_imports.get("", 1)
    names: Names | None = None
    count = 0
    for node in nodes(model):
        if node.op_type != "Squeeze" or node.domain not in ("", "ai.onnx") or _spelled(node):
            continue
        data = node.inputs[0]
        if data is None or data.shape is None or not all(isinstance(size, int) for size in data.shape):
            continue
        dims = [dim for dim, size in enumerate(data.shape) if size == 1]
        if opset < OPERAND_SINCE:
            node.attributes["axes"] = ir.AttrInt64s("axes", dims)
        else:
            names = names or Names(model)
            spelled = constant(model, names.fresh(f"{node.name}_axes"), np.asarray(dims, dtype=np.int64))
            node.resize_inputs(2)
            node.replace_input_with(1, spelled)
        count += 1
    return count


def _spelled(node: ir.Node) -> bool:
    return "axes" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None)
