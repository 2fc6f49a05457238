"""Remove nodes, initializers and local functions that no graph output depends on."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from graphprune.frontends.onnx_walk import bodies, graphs
from graphprune.passes.base import Context, Pass, Report, register
from graphprune.passes.tensors import detach

__all__ = ["EliminateDeadNodes", "eliminate_dead_nodes"]


@register
@dataclass(frozen=True)
class EliminateDeadNodes(Pass):
    """Remove what no graph output depends on; inputs and outputs of the model stay."""

    def run(self, model: ir.Model, context: Context) -> Report:
        """Remove dead nodes first, then the initializers that only they read."""
        counts = eliminate_dead_nodes(model)
        return Report(any(counts.values()), {name: count for name, count in counts.items() if count})


def eliminate_dead_nodes(model: ir.Model) -> dict[str, int]:
    """Remove dead nodes, unread initializers and uncalled local functions; returns how many of each."""
    nodes = _sweep(model.graph)
    initializers = 0
    for graph in graphs(model):
        for value in list(graph.initializers.values()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                assert value.name is not None
                del graph.initializers[value.name]
                initializers += 1
    functions = len(model.functions)
    if functions:
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return {
        "dead nodes": nodes,
        "unread initializers": initializers,
        "uncalled functions": functions - len(model.functions),
    }


def _sweep(graph: ir.Graph) -> int:
    """Remove the dead nodes of ``graph``, last first, so that one walk finds whole dead chains."""
    count = 0
    for node in reversed(graph):
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            count += sum(_sweep(body) for body in bodies(node))
            continue
        detach(node)
        graph.remove(node, safe=True)
        count += 1
    return count
