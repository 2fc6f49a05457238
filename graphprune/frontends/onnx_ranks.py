"""Refuse graphs whose operators cannot take the shapes they are given.

ONNX's shape inference runs in its strict mode on a copy without weights and without declared intermediate shapes, so
that only an operator's own refusal counts. ONNX Runtime runs the same checks when it loads a model.
"""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir
from onnx import shape_inference

from graphprune.frontends import onnx_convolutions
from graphprune.frontends.messages import model_error, root_cause
from graphprune.frontends.onnx_slim import slim_proto

__all__ = ["check_ranks"]

REFUSAL = re.compile(r"\(op_type:(\w+), node name: (\d+)\): (?:\[(?:Shape|Type)InferenceError\] )?(.*)")
OPERATOR = re.compile(r"\(op_type:(\w+)")
BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
NESTED = "Inference error(s)"
UNTYPED = "instead is null"


def check_ranks(model: ir.Model, where: str) -> None:
    """Check that every operator accepts the types, ranks and sizes of its operands, as far as these are known.

    Raises:
        ModelError: names the first node that does not.
    """
    proto = slim_proto(model, {})
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    nodes = {node.outputs[0].name: node for node in model.graph if node.outputs}
    for number, copy in enumerate(proto.graph.node):
        copy.name = str(number)
    try:
        inferred = _infer(proto, where, strict=True)
    except shape_inference.InferenceError as error:
        for match in REFUSAL.finditer(str(error)):
            operator, index, reason = match.groups()
            # An operator defined by a function can fail inside it for lack of a default that ONNX Runtime knows, a type
            # that is missing belongs to an operator that is not known, and one that is no standard operator stands for
            # others in the copy alone.
            innermost = (operator, *OPERATOR.findall(reason))[-1]
            nested = innermost != operator or reason.startswith(NESTED)
            if UNTYPED in reason or not onnx.defs.has(innermost) or (nested and operator not in BODIES):
                continue
            output = proto.graph.node[int(index)].output[0]
            original = nodes.get(output)
            if original is None or original.op_type != operator:
                continue  # it stands for a foreign operator of the same shapes, but not of the same types
            node = f"node '{original.name or output}' ({operator})"
            raise model_error(
                where, f"{node} cannot take its operands ({reason.strip()})", "export the model again"
            ) from error
        inferred = _infer(proto, where, strict=False)
    for copy, fault in onnx_convolutions.faults(inferred.graph):
        original = nodes.get(copy.output[0])
        if original is not None and original.op_type == copy.op_type:
            node = f"node '{original.name or copy.output[0]}' ({copy.op_type})"
            raise model_error(where, f"{node} cannot take its operands: {fault}", "export the model again")


def _infer(proto: onnx.ModelProto, where: str, *, strict: bool) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict)
    except Exception as error:
        if strict and isinstance(error, shape_inference.InferenceError):
            raise
        # Apart from its own error, inference raises what the encoding of messages and type tables raise.
        raise model_error(where, f"its shapes cannot be inferred ({root_cause(error)})", "export it again") from error
