"""Models that show more than the one at hand: they are looked at before the end, or without rounding.

None of this changes what the proof is about. The last operators of a model (a softmax, a sigmoid) hide differences
where they saturate; they are the same in both models, so their operands are compared as well. Rounding to integers
turns a last-bit difference into a whole step, as often as a number falls between two steps; without it, on both sides,
the two models must agree as float models do. A selection (the best boxes of a detector) jumps where two candidates are
almost equal; where nothing behind it is cut, the models are compared by what goes into it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphprune.frontends.onnx_walk import bodies, nodes
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["before_jumps", "bounded_outputs", "expose", "hidden_values", "jumps", "unround"]

_JUMPS = frozenset({
    "ArgMax", "ArgMin", "Ceil", "Compress", "Floor", "NonMaxSuppression", "NonZero", "Round", "Sign", "TopK", "Unique",
})  # fmt: skip

_BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid", "Hardmax", "Tanh", "QLinearSigmoid", "QLinearSoftmax"})
_ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
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


def expose(model: ir.Model, names: list[str], hide: frozenset[str] = frozenset()) -> ir.Model:
    """``model`` with the values called ``names`` as further outputs, without those in ``hide``; a copy if need be."""
    if not names and not hide:
        return model
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    outputs = [value for value in copy.graph.outputs if value.name not in hide]
    outputs += [values[name] for name in names if values[name] not in outputs]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    return copy


def jumps(model: ir.Model) -> bool:
    """Whether rounding can turn a last-bit difference into a visible one somewhere in ``model``."""
    return any(node.op_type in _JUMPS | _ROUNDING or "QLinear" in node.op_type for node in nodes(model))


def before_jumps(
    model: ir.Model, structure: Structure, selection: Selection
) -> tuple[list[str], frozenset[str]] | None:
    """The values that enter what follows a selection or rounding, and the outputs that hang on one.

    None where there is no such operator, or where something behind it is cut.
    """
    behind: set[str] = set()
    entering: dict[str, None] = {}
    inner = {value.name for node in model.graph for value in node.outputs}
    for node in model.graph:
        everything = [node, *(each for body in bodies(node) for each in _inside(body))]
        reads = {value.name or "" for each in everything for value in each.inputs if value is not None}
        reads |= {value.name or "" for body in bodies(node) for value in body.outputs}
        if not reads & behind and not any(each.op_type in _JUMPS for each in everything):
            continue
        makes = {value.name or "" for each in everything for value in each.outputs}
        axes = [axis for name in reads | makes for axis in structure.tensors.get(name) or ()]
        if any(selection.cuts(axis) for axis in axes):
            return None
        entering.update(dict.fromkeys(name for name in sorted(reads) if name in inner and name not in behind))
        behind |= {value.name or "" for value in node.outputs}
    hidden = frozenset(value.name or "" for value in model.graph.outputs) & behind
    return (list(entering), hidden) if hidden and entering else None


def _inside(body: ir.Graph) -> Iterator[ir.Node]:
    for node in body:
        yield node
        for inner in bodies(node):
            yield from _inside(inner)


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
