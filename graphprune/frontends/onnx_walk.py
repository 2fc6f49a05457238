"""Walk the graphs and nodes of an ONNX model, bodies of control flow included, in reading order."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["bodies", "graphs", "nodes"]


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that ``node`` holds as attributes."""
    for attribute in node.attributes.data.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.value


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield the main graph and every body in it, outer before inner; local functions are not entered."""
    pending = [model.graph]
    for graph in pending:
        yield graph
        pending.extend(body for node in graph for body in bodies(node))


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node, those of a body right after the node that holds it; the walk bears removal of past nodes."""
    stack = [iter(model.graph)]
    while stack:
        for node in stack[-1]:
            yield node
            inner = list(bodies(node))
            if inner:
                stack.extend(iter(body) for body in reversed(inner))
                break
        else:
            stack.pop()
