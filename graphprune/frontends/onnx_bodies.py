"""If, Loop and Scan: their bodies are part of the graph, and values that cross the border share their axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphprune.frontends.onnx_dims import sizes_of
from graphprune.frontends.onnx_walk import bodies
from graphprune.frontends.reading import meet
from graphprune.rules.call import Axes, Call, Declined

if TYPE_CHECKING:
    from graphprune.frontends.onnx_reader import Reader

__all__ = ["READERS", "border", "pin_bodies"]


def _body(node: ir.Node, name: str) -> ir.Graph:
    return node.attributes[name].as_graph()


def border(node: ir.Node) -> tuple[str, ...]:
    """Names of the values that the bodies of a node take and give."""
    return tuple(value.name or "" for body in bodies(node) for value in (*body.inputs, *body.outputs))


def pin_bodies(reader: Reader, node: ir.Node, call: Call) -> None:
    """Keep all that the bodies of a node read, where nobody knows how the node runs them."""
    for graph in bodies(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            for value in inner.inputs:
                if value is not None and value.is_initializer() and (value.name or "") not in reader.structure.tensors:
                    reader.initializer(value)
                _pin(reader, call, value)
        for value in graph.outputs:
            _pin(reader, call, value)


def _pin(reader: Reader, call: Call, value: ir.Value | None) -> None:
    if value is not None:
        call.pin(_axes(reader, value) or (), "read in a body")
        reader.pin_meaning(value.name or "", call.why("read in a body"))


def _enter(reader: Reader, call: Call, values: Sequence[ir.Value], given: Sequence[Axes | None]) -> None:
    """Let the inputs of a body have the axes of what is passed in."""
    for value, axes in zip(values, given, strict=True):
        if axes is not None and value.shape is not None and len(axes) != len(value.shape):
            call.pin(axes, "a body that states another rank")
            axes = None
        reader.structure.tensors[value.name or ""] = reader.refined(call, axes, sizes_of(value))


def _axes(reader: Reader, value: ir.Value) -> Axes | None:
    return reader.structure.tensors.get(value.name or "")


def read_if(reader: Reader, node: ir.Node, call: Call) -> list[Axes | None]:
    """Results of both branches are one."""
    branches = [_body(node, "then_branch"), _body(node, "else_branch")]
    for branch in branches:
        reader.graph(branch)
    return [
        meet(call, _axes(reader, a), _axes(reader, b), "branches of If that disagree")
        for a, b in zip(branches[0].outputs, branches[1].outputs, strict=True)
    ]


def read_loop(reader: Reader, node: ir.Node, call: Call) -> list[Axes | None]:
    """Carried values are one before, within and after; scanned results gain a leading dimension."""
    body = _body(node, "body")
    carried = len(node.inputs) - 2
    if carried < 0 or len(body.inputs) != carried + 2:
        raise Declined("a loop with missing values")
    initial = [operand.axes if operand is not None else None for operand in call.operands[2:]]
    _enter(reader, call, body.inputs, [(), (), *initial])
    reader.graph(body)
    results: list[Axes | None] = [
        meet(call, _axes(reader, inner), _axes(reader, outer), "a carried value that changes shape")
        for inner, outer in zip(body.inputs[2:], body.outputs[1 : carried + 1], strict=True)
    ]
    for value in body.outputs[carried + 1 :]:
        axes = _axes(reader, value)
        results.append(None if axes is None else (call.fixed(None, "loop iterations"), *axes))
    return results


def read_scan(reader: Reader, node: ir.Node, call: Call) -> list[Axes | None]:
    """As a loop over one dimension of each scanned input and result."""
    body = _body(node, "body")
    scanned = int(call.attribute("num_scan_inputs", 0))
    states = len(node.inputs) - scanned
    in_axes = list(call.attribute("scan_input_axes", [0] * scanned))
    given: list[Axes | None] = [operand.axes if operand else None for operand in call.operands[:states]]
    for operand, dim in zip(call.operands[states:], in_axes, strict=True):
        axes = operand.axes if operand is not None else None
        if axes is None:
            given.append(None)
            continue
        dim %= len(axes)
        call.pin(axes[dim], "scanned step by step")
        given.append(axes[:dim] + axes[dim + 1 :])
    _enter(reader, call, body.inputs, given)
    reader.graph(body)
    results: list[Axes | None] = [
        meet(call, _axes(reader, inner), _axes(reader, outer), "a carried value that changes shape")
        for inner, outer in zip(body.inputs[:states], body.outputs[:states], strict=True)
    ]
    out_axes = list(call.attribute("scan_output_axes", [0] * (len(body.outputs) - states)))
    for value, dim in zip(body.outputs[states:], out_axes, strict=True):
        axes = _axes(reader, value)
        if axes is None:
            results.append(None)
            continue
        dim %= len(axes) + 1
        results.append((*axes[:dim], call.fixed(None, "scan steps"), *axes[dim:]))
    return results


READERS: dict[str, Callable[[Reader, ir.Node, Call], list[Axes | None]]] = {
    "onnx.If": read_if,
    "onnx.Loop": read_loop,
    "onnx.Scan": read_scan,
}
