"""What must hold of one node as its operator defines it: onnx's own check of signatures, and what onnx never checks.

onnx's shape inference indexes with some attributes and operands as they come. Values that would end the process there,
or keep it busy to the end of time or memory, are refused here.
"""

from __future__ import annotations

import re

import onnx

from graphprune.frontends.onnx_check_values import MAX_RANK, Scope

__all__ = ["check_operator"]

STANDARD = ("", "ai.onnx.ml")

SHAPE_OPERANDS = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
"""Operand that is a shape; onnx's shape inference writes down as many axes as it is long, to the end of memory."""

TERM = rb"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
EQUATION = re.compile(TERM + rb"(?:," + TERM + rb")*(?:->" + TERM + rb")?")
"""Equations of Einsum; over others, onnx's shape inference may not end."""

BODIES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)

SMALL_NODE = 1 << 16
"""Nodes beyond this many bytes hold a big constant, and are not copied for the check of their signature."""


def check_operator(scope: Scope, label: str, node: onnx.NodeProto) -> None:
    """Check a node against its operator; one that onnx does not know passes.

    Args:
        scope: what the node may refer to.
        label: what to call the node.
        node: the node; not changed.
    """
    if node.op_type == "Einsum" and not all(map(_is_equation, node.attribute)):
        raise scope.fail(f"{label} has an equation that is none")
    parts = next((item.i for item in node.attribute if item.name == "num_outputs"), len(node.output))
    if node.op_type == "Split" and parts < len(node.output):
        raise scope.fail(f"{label} has {len(node.output)} outputs but num_outputs is {parts}")
    place = SHAPE_OPERANDS.get(node.op_type, len(node.input))
    if place < len(node.input) and node.input[place] in scope.long:
        raise scope.fail(f"{label} takes '{node.input[place]}' for a shape, which has more than {MAX_RANK} numbers")
    _check_signature(scope, label, node)


def _check_signature(scope: Scope, label: str, node: onnx.NodeProto) -> None:
    """Check the number of operands and the attributes of a standard operator."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in STANDARD or (node.domain, node.op_type) in scope.functions or node.ByteSize() > SMALL_NODE:
        return
    if not onnx.defs.has(node.op_type, scope.opsets[domain], domain):
        if onnx.defs.has(node.op_type, domain):
            raise scope.fail(f"{label} is of an operator that operator set {scope.opsets[domain]} does not have yet")
        return
    # ONNX Runtime runs some deprecated operators, such as the first GroupNormalization.
    if onnx.defs.get_schema(node.op_type, scope.opsets[domain], domain).deprecated:
        return
    if any(attribute.t.data_location for attribute in node.attribute):
        return
    if node.domain or any(attribute.type in BODIES for attribute in node.attribute):
        node = _without_bodies(node)
    try:
        onnx.checker.check_node(node, scope.context)
    except onnx.checker.ValidationError as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise scope.fail(f"{label} does not fit its operator ({reason})") from error


def _is_equation(attribute: onnx.AttributeProto) -> bool:
    return attribute.name != "equation" or EQUATION.fullmatch(attribute.s) is not None


def _without_bodies(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy with empty graphs, as onnx cannot check graphs apart from those around them, and no `ai.onnx`."""
    copy = onnx.NodeProto(op_type=node.op_type, name=node.name, input=node.input, output=node.output)
    copy.domain = "" if node.domain == "ai.onnx" else node.domain
    for attribute in node.attribute:
        if attribute.type in BODIES:
            body = onnx.GraphProto(name="body")
            field = {"g": body} if attribute.type == onnx.AttributeProto.GRAPH else {"graphs": [body]}
            copy.attribute.add(name=attribute.name, type=attribute.type, **field)
        else:
            copy.attribute.append(attribute)
    return copy
