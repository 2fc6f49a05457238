"""Shapes and types of every value of an ONNX model, without reading a weight.

ONNX's own inference (with data propagation) runs on a *slim* copy of the graph in which large initializers are
mere types. Operators outside the standard are renamed into a private domain whose shape functions come from the
tables of :mod:`graphprune.frontends.contrib_shapes`, so one run covers chains that mix both, in any nesting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir
from onnx import shape_inference

from graphprune.errors import ModelError
from graphprune.frontends.loop_shapes import Dims, Types, loop_shapes, shape_of
from graphprune.frontends.onnx_slim import INVENTED_PREFIX, slim_proto
from graphprune.frontends.onnx_walk import bodies, graphs
from graphprune.frontends.shape_completion import complete_shapes

__all__ = ["clear_shapes", "infer_shapes"]

_ROUNDS = 4
"""What is found behind a partly known Reshape may enter a body or an operator of ONNX Runtime's, and so on."""


def infer_shapes(model: ir.Model) -> bool:
    """Fill ``shape`` and ``type`` of as many values of ``model`` as possible, in place, subgraphs included.

    Returns whether anything new was learned.

    Symbolic names come from the graph's inputs only; a dimension that nothing determines stays unnamed. Shapes
    already stored on values are believed where inference finds nothing, unless any of them contradicts it (as after
    somebody edited the batch size of the inputs alone): then all are forgotten.

    Raises:
        ModelError: when ONNX's inference rejects the graph as a whole.
    """
    learned = fill_constants(model) | _drop_negative(model)
    names = _declared_names(model)
    for _ in range(_ROUNDS):
        inferred = _infer(model, names)
        for value, type_proto in inferred.items():
            learned |= _assign(value, type_proto, names)
        completed = False
        for value, type_proto in complete_shapes(model):
            completed |= _assign(value, type_proto, names)
        learned |= completed
        if not completed or not any(node.domain or any(bodies(node)) for node in model.graph):
            return learned
    return learned


def clear_shapes(model: ir.Model) -> None:
    """Forget every inferred shape: all but those of graph inputs, graph outputs and initializers."""
    for graph in graphs(model):
        kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
        for node in graph:
            for output in node.outputs:
                if id(output) not in kept:
                    output.shape = None


def fill_constants(model: ir.Model) -> bool:
    """Give each initializer the shape and type of its tensor; returns whether one had another."""
    changed = False
    for graph in graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                extents = tensor.shape.numpy()
                if value.shape is None or value.shape.dims != extents:
                    value.shape = ir.Shape(extents)
                    changed = True
                if value.type is None or value.dtype != tensor.dtype:
                    value.type = ir.TensorType(tensor.dtype)
                    changed = True
    return changed


def _drop_negative(model: ir.Model) -> bool:
    """Make dimensions of negative extent, as some exporters write unknown ones, unknown; returns whether any was."""
    changed = False
    for graph in graphs(model):
        for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            if value.shape is not None and any(isinstance(dim, int) and dim < 0 for dim in value.shape):
                value.shape = ir.Shape([None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape])
                changed = True
    return changed


def _infer(model: ir.Model, names: set[str]) -> Types:
    """Return the types that ONNX's inference finds by itself, from stored shapes, and from what loops keep."""
    inferred = _run(model, {})
    stored = _stored(model, inferred, names)
    if stored is None:
        clear_shapes(model)
        stored = {}
    elif stored:
        inferred = _run(model, stored)
    kept = loop_shapes(model, inferred, lambda assumed: _run(model, {**stored, **assumed}))
    return _run(model, {**stored, **kept}) if kept else inferred


def _run(model: ir.Model, stored: Types) -> Types:
    """Return the types that ONNX's inference finds, by value; ``stored`` are extra facts."""
    proto = slim_proto(model, stored)
    try:
        result = shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"ONNX shape inference rejects the graph: {reason[:300]}") from error
    return dict(_pairs(model.graph, result.graph))


def _pairs(graph: ir.Graph, proto: onnx.GraphProto) -> Iterator[tuple[ir.Value, onnx.TypeProto]]:
    """Yield each value of ``graph`` and its subgraphs with its inferred type."""
    types = {info.name: info.type for info in (*proto.value_info, *proto.output, *proto.input)}
    values: Iterable[ir.Value] = (*graph.inputs, *(output for node in graph for output in node.outputs))
    for value in values:
        if value.name and value.name in types:
            yield value, types[value.name]
    found = (
        body
        for node in proto.node
        for attribute in node.attribute
        for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)
    )
    for subgraph, body in zip((body for node in graph for body in bodies(node)), found, strict=True):
        yield from _pairs(subgraph, body)


def _declared_names(model: ir.Model) -> set[str]:
    """Return the symbolic names that the model itself spells: on inputs, outputs and stored shapes."""
    names: set[str] = set()
    for graph in graphs(model):
        values = (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs))
        for value in values:
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value:
                    names.add(dim.value)
    return names


def _stored(model: ir.Model, inferred: Types, names: set[str]) -> Types | None:
    """Return the stored shapes that add to the inferred ones; None if any contradicts them."""
    interface = {dim for value in model.graph.inputs for dim in _dims_of(value)}
    seeds: Types = {}
    for value in (output for graph in graphs(model) for node in graph for output in node.outputs):
        if value.shape is None or not value.name:
            continue
        found = shape_of(inferred.get(value))
        if found is not None and _contradicts(value.shape, found, interface):
            return None
        if value.type is None:
            continue
        if found is None or any(
            not _unnamed(here) and (there is None or (isinstance(there, str) and there not in names))
            for here, there in zip(value.shape, found, strict=True)
        ):
            info = onnx.ValueInfoProto()
            ir.serde.serialize_value_into(info, value)
            seeds[value] = info.type
    return seeds


def _contradicts(shape: ir.Shape, found: Dims, interface: set[str]) -> bool:
    """Return whether a stored shape states another rank or extent, or a number for a dimension of the inputs."""
    if len(shape) != len(found):
        return True
    return any(
        isinstance(here, int) and (there in interface if isinstance(there, str) else there not in (None, here))
        for here, there in zip(shape, found, strict=True)
    )


def _dims_of(value: ir.Value) -> Iterator[str]:
    for dim in value.shape or ():
        if isinstance(dim, ir.SymbolicDim) and dim.value:
            yield dim.value


def _assign(value: ir.Value, proto: onnx.TypeProto, names: set[str]) -> bool:
    """Write an inferred type into ``value``, without the dimension names that inference invented; True if new."""
    if value.is_initializer() or not proto.WhichOneof("value"):
        return False
    changed = False
    if not _has_type(value, proto):
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
        changed = True
    dims = shape_of(proto)
    if dims is None or (value.is_graph_input() and value.shape is not None):
        return changed
    found = [_dim(dim, names) for dim in dims]
    if value.shape is not None and len(value.shape) == len(dims):
        named = value.is_graph_output()
        found = [
            old if _unnamed(new) or (named and not isinstance(new, int) and not _unnamed(old)) else new
            for old, new in zip(value.shape, found, strict=True)
        ]
    if value.shape is not None and list(value.shape) == found:
        return changed
    value.shape = ir.Shape(found)
    return True


def _unnamed(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, ir.SymbolicDim) and dim.value is None


def _dim(dim: int | str | None, names: set[str]) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim if dim >= 0 else ir.SymbolicDim(None)
    invented = dim is None or (dim.startswith(INVENTED_PREFIX) and dim not in names)
    return ir.SymbolicDim(None if invented else dim)


def _has_type(value: ir.Value, proto: onnx.TypeProto) -> bool:
    """Return whether ``value`` has the type already, or ``proto`` names none."""
    if proto.HasField("tensor_type"):
        element = proto.tensor_type.elem_type
        return element == onnx.TensorProto.UNDEFINED or (
            isinstance(value.type, ir.TensorType) and value.dtype == element
        )
    return value.type == ir.serde.deserialize_type_proto_for_type(proto)
