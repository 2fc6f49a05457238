"""Models that show more than the one at hand: what saturates at the end is looked at before, and rounding is left out.

Neither changes what the proof is about. The last operators of a model (a softmax, a sigmoid) hide differences where
they saturate; they are the same in both models, so their operands are compared as well. Rounding to integers turns a
last-bit difference into a whole step, as often as a number falls between two steps; without it, on both sides, the two
models must agree as float models do.
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["bounded_outputs", "expose", "hidden_values", "unround"]

_BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid", "Hardmax", "Tanh", "QLinearSigmoid", "QLinearSoftmax"})
_TRANSPARENT = frozenset({
    "Cast", "Clip", "DequantizeLinear", "Exp", "Flatten", "Identity", "LogSoftmax", "QuantizeLinear", "Relu", "Reshape",
    "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


def _before(value: ir.Value) -> tuple[ir.Value, bool]:
    """The first operand behind the functions at the end of a graph, and whether one of them has bounded results."""
    bounded = False
    node = value.producer()
    while node is not None and node.op_type in _BOUNDED | _TRANSPARENT and node.inputs[0] is not None:
        bounded |= node.op_type in _BOUNDED
        value = node.inputs[0]
        node = value.producer()
    return value, bounded


def bounded_outputs(model: ir.Model) -> frozenset[str]:
    """Names of outputs that lie between -1 and 1 whatever the input."""
    return frozenset(value.name or "" for value in model.graph.outputs if _before(value)[1])


def hidden_values(model: ir.Model, structure: Structure, selection: Selection) -> list[str]:
    """Names of the values that the last functions of ``model`` work on, where no position of them is cut."""
    found: dict[str, None] = {}
    for output in model.graph.outputs:
        value, _ = _before(output)
        axes = structure.tensors.get(value.name or "")
        inner = value is not output and value.producer() is not None and not value.is_graph_output()
        if inner and axes is not None and not any(selection.cuts(axis) for axis in axes):
            found[value.name or ""] = None
    return list(found)


def expose(model: ir.Model, names: list[str]) -> ir.Model:
    """``model`` with the values called ``names`` as further outputs; a copy, unless there are none."""
    if not names:
        return model
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in names)
    return copy


def unround(model: ir.Model) -> int:
    """Let each activation pass, in place, where it is quantised only to be dequantised; returns how many do."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output() or node.inputs[0] is None:
            continue
        readers = [usage.node for usage in node.outputs[0].uses()]
        plain = all(reader.op_type == "DequantizeLinear" for reader in readers)
        if not readers or not plain or any(reader.outputs[0].is_graph_output() for reader in readers):
            continue
        for reader in readers:
            reader.outputs[0].replace_all_uses_with(node.inputs[0])
        count += 1
    return count
