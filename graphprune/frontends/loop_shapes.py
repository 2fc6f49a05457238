"""Shapes of the values that ONNX Loops carry from one iteration to the next.

ONNX's inference knows only the element type of a carried value, since a body may change its shape. Here the initial
shape is assumed for the body; what the body gives back in the same shape keeps it, and what changes is assumed away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx
import onnx_ir as ir

from graphprune.frontends.onnx_walk import nodes

__all__ = ["Dims", "Types", "loop_shapes", "shape_of"]

Types: TypeAlias = "dict[ir.Value, onnx.TypeProto]"
Dims: TypeAlias = "list[int | str | None]"

_ROUNDS = 8
"""Each round either confirms all assumptions, weakens some dimension, or enters one more nested loop."""


def loop_shapes(model: ir.Model, inferred: Types, run: Callable[[Types], Types]) -> Types:
    """Return the types of carried values, inside and behind their loops, that hold in every iteration.

    Args:
        model: the model.
        inferred: what is known without them.
        run: infers types under assumptions.
    """
    carried = [
        (node.inputs[2 + position], body.inputs[2 + position], body.outputs[1 + position], node.outputs[position])
        for node in nodes(model)
        if node.op_type == "Loop" and node.domain == ""
        for body in [node.attributes["body"].as_graph()]
        for position in range(len(node.inputs) - 2)
    ]
    assumed: Types = {}
    refuted: set[ir.Value] = set()
    for _ in range(_ROUNDS if carried else 0):
        changed = False
        for initial, inside, returned, _ in carried:
            if inside in refuted or initial is None:
                continue
            before = shape_of(assumed.get(inside))
            if before is None:
                after = _initial(initial, inferred)
            else:
                after = _meet(before, shape_of(inferred.get(returned)))
            if after is None:
                changed |= assumed.pop(inside, None) is not None
                refuted.update([inside] if before is not None else [])
            elif after != before:
                assumed[inside] = _typed(_type(initial, inferred), after)
                changed = True
        if not changed:
            break
        inferred = run(assumed)
    else:
        return {}
    behind = {result: assumed[inside] for _, inside, _, result in carried if inside in assumed}
    return {**assumed, **behind}


def shape_of(proto: onnx.TypeProto | None) -> Dims | None:
    """Return the dims of a tensor type (int, name or None), or None when the rank is unknown."""
    if proto is None or not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in proto.tensor_type.shape.dim
    ]


def _type(value: ir.Value, inferred: Types) -> onnx.TypeProto:
    """Return what is known about ``value``, which may be an initializer."""
    if value in inferred:
        return inferred[value]
    info = onnx.ValueInfoProto()
    ir.serde.serialize_value_into(info, value, name="value")
    return info.type


def _initial(value: ir.Value, inferred: Types) -> Dims | None:
    return shape_of(_type(value, inferred))


def _meet(before: Dims, after: Dims | None) -> Dims | None:
    """Return the dimensions that did not change; None when even their number is another."""
    if after is None or len(after) != len(before):
        return None
    return [old if old == new else None for old, new in zip(before, after, strict=True)]


def _typed(proto: onnx.TypeProto, dims: Dims) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(proto.tensor_type.elem_type, dims)
