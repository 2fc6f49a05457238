"""The ends of a PyTorch program: functions that saturate hide differences, so what they work on is compared as well.

They are the same in both programs, so this changes nothing about what is proved.
"""

from __future__ import annotations

from torch import fx

from graphprune.frontends.torch_calls import Sequences, names_of
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["bounded_outputs", "hidden_values", "output_names"]

_BOUNDED = frozenset({
    "aten.hardsigmoid", "aten.sigmoid", "aten.softmax", "aten._softmax", "aten.tanh",
})  # fmt: skip
_CHANGING = frozenset({"aten.clamp", "aten.exp", "aten.log_softmax", "aten.relu", "aten.to"})
_MOVING = frozenset({
    "aten.contiguous", "aten.clone", "aten.flatten", "aten.permute", "aten.reshape", "aten.squeeze", "aten.transpose",
    "aten.unsqueeze", "aten.view",
})  # fmt: skip


def output_names(module: fx.GraphModule) -> list[str]:
    """For each output of a graph the name of the node that makes it; a place in the list for a plain value."""
    return [each.name if isinstance(each, fx.Node) else f"output {at}" for at, each in enumerate(_outputs(module))]


def bounded_outputs(module: fx.GraphModule) -> frozenset[str]:
    """Names of outputs that lie between -1 and 1 whatever the input."""
    nodes = [each for each in _outputs(module) if isinstance(each, fx.Node)]
    return frozenset(node.name for node in nodes if not _BOUNDED.isdisjoint(_behind(node)[1]))


def hidden_values(module: fx.GraphModule, structure: Structure, selection: Selection) -> list[str]:
    """Names of the nodes that the last functions of ``module`` work on, where no position of them is cut."""
    outputs = [each for each in _outputs(module) if isinstance(each, fx.Node)]
    found: dict[str, None] = {}
    for output in outputs:
        node, functions = _behind(output)
        axes = structure.tensors.get(node.name)
        if functions <= _MOVING or node in outputs or node.op != "call_function" or axes is None:
            continue
        if not any(map(selection.cuts, axes)):
            found[node.name] = None
    return list(found)


def _outputs(module: fx.GraphModule) -> list[object]:
    ending = next(node for node in module.graph.nodes if node.op == "output").args[0]
    return list(ending) if isinstance(ending, Sequences) else [ending]


def _behind(node: fx.Node) -> tuple[fx.Node, frozenset[str]]:
    """The first operand behind the functions at the end of a graph, and the names of these."""
    functions: set[str] = set()
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        name = names_of(node.target)[-1]
        if name not in _BOUNDED | _CHANGING | _MOVING:
            break
        functions.add(name)
        node = node.args[0]
    return node, frozenset(functions)
