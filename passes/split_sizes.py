"""Write out the sizes of a split that only says into how many parts it divides an axis.

Parts of unsaid size must stay equal, which would couple query, key and value of a fused projection; with sizes of their
own they can be cut each by itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import Names, constant

__all__ = ["write_split_sizes"]

OPERAND_SINCE = 13
"""The opset in which the sizes became an operand."""


def write_split_sizes(model: ir.Model) -> int:
    """Give each Split of an axis of known size its sizes; returns how many it gave."""
    opset = model.opset_imports.get("", 1)
    names: Names | None = None
    count = 0
    for node in nodes(model):
        if node.op_type != "Split" or node.domain not in ("", "ai.onnx") or _spelled(node):
            continue
        sizes = _sizes(node)
        if sizes is None:
            continue
        if opset < OPERAND_SINCE:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
        else:
            names = names or Names(model)
            spelled = constant(model, names.fresh(f"{node.name}_sizes"), np.asarray(sizes, dtype=np.int64))
            data = node.inputs[0]
            node.resize_inputs(2)
            node.replace_input_with(0, data)
            node.replace_input_with(1, spelled)
            node.attributes.pop("num_outputs", None)
        count += 1
    return count


def _spelled(node: ir.Node) -> bool:
    return "split" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None)


def _sizes(node: ir.Node) -> list[int] | None:
    data = node.inputs[0]
    axis = node.attributes.get_int("axis", 0)
    if data is None or data.shape is None or not -len(data.shape) <= axis < len(data.shape):
        return None
    whole, parts = data.shape[axis], len(node.outputs)
    if not isinstance(whole, int):
        return None
    each = -(-whole // parts)
    last = whole - each * (parts - 1)
    return [each] * (parts - 1) + [last] if last > 0 else None
