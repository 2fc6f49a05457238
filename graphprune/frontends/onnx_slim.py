"""A copy of an ONNX graph that carries types but no weights, for ONNX's shape inference."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from graphprune.frontends import contrib_shapes, onnx_attributes

__all__ = ["INVENTED_PREFIX", "slim_proto"]

INVENTED_PREFIX = "unk__"
"""How ONNX's inference names the dimensions that it makes up."""

_DATA_LIMIT = 128
"""Constants of at most this many elements travel along, since shapes are computed from them."""

_CHAIN = 8
"""Operators to look back from a Slice for the Shape that it takes a part of."""


def slim_proto(model: ir.Model, stored: Mapping[ir.Value, onnx.TypeProto]) -> onnx.ModelProto:
    """Return ``model`` as a proto fit for shape inference: big tensors as types, foreign operators translated.

    Args:
        model: the model; not changed, and no big tensor of it is read.
        stored: types to state for node outputs and inputs of subgraphs, besides those that inference will find.
    """
    contrib_shapes.register()
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.opset_import.add(domain=contrib_shapes.DOMAIN, version=1)
    local = {(identifier[0], identifier[1]) for identifier in model.functions}
    _write_graph(model.graph, proto.graph, stored, model.opset_imports.get("", 1), local)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    return proto


def _write_graph(
    graph: ir.Graph,
    proto: onnx.GraphProto,
    stored: Mapping[ir.Value, onnx.TypeProto],
    opset: int,
    local: set[tuple[str, str]],
) -> None:
    proto.name = graph.name or "graph"
    for values, infos in ((graph.inputs, proto.input), (graph.outputs, proto.output)):
        for value in values:
            if value in stored:
                infos.add(name=value.name or "", type=stored[value])
            else:
                _write_type(infos.add(), value)
    inputs = {id(value) for value in graph.inputs}
    for value in (*graph.initializers.values(), *_outer_constants(graph)):
        tensor = value.const_value
        if tensor is not None and tensor.size <= _DATA_LIMIT:
            added = proto.initializer.add()
            ir.serde.serialize_tensor_into(added, tensor)
            added.name = value.name or ""
        elif id(value) not in inputs:
            _write_type(proto.value_info.add(), value)
    for node in graph:
        if node.op_type == "Constant" and node.domain == "" and _write_big_constant(node, proto):
            continue
        _write_node(node, proto, stored, opset, local)


def _outer_constants(graph: ir.Graph) -> list[ir.Value]:
    """The constants of enclosing graphs that ``graph`` reads: inference does not look for them outside a body."""
    read = {value: None for node in graph for value in node.inputs if value is not None}
    return [value for value in read if value.is_initializer() and value.graph is not graph]


def _write_type(info: onnx.ValueInfoProto, value: ir.Value) -> None:
    info.name = value.name or ""
    if value.type is not None:
        ir.serde.serialize_type_into(info.type, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(info.type, value.shape)


def _write_big_constant(node: ir.Node, proto: onnx.GraphProto) -> bool:
    """State the type of a Constant node's big tensor instead of the node; returns False when it is small."""
    attribute = node.attributes.get("value")
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return False
    tensor = onnx_attributes.held(attribute)
    if tensor.size <= _DATA_LIMIT:
        return False
    info = proto.value_info.add(name=node.outputs[0].name or "")
    info.type.tensor_type.elem_type = int(tensor.dtype)
    for dim in tensor.shape.numpy():
        info.type.tensor_type.shape.dim.add(dim_value=dim)
    return True


def _write_node(
    node: ir.Node,
    proto: onnx.GraphProto,
    stored: Mapping[ir.Value, onnx.TypeProto],
    opset: int,
    local: set[tuple[str, str]],
) -> None:
    copy = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    copy.input.extend(value.name or "" if value is not None else "" for value in node.inputs)
    copy.output.extend(value.name or "" for value in node.outputs)
    for attribute in node.attributes.values():
        if attribute.is_ref():
            copy.attribute.append(ir.serde.serialize_attribute(attribute))
        elif attribute.type == ir.AttributeType.GRAPH:
            added = copy.attribute.add(name=attribute.name, type=onnx.AttributeProto.GRAPH)
            _write_graph(attribute.as_graph(), added.g, stored, opset, local)
        elif attribute.type == ir.AttributeType.GRAPHS:
            added = copy.attribute.add(name=attribute.name, type=onnx.AttributeProto.GRAPHS)
            for graph in attribute.as_graphs():
                _write_graph(graph, added.graphs.add(), stored, opset, local)
        else:
            copy.attribute.append(ir.serde.serialize_attribute(attribute))
    foreign = (node.domain, node.op_type) not in local
    proto.node.extend(contrib_shapes.translate(copy, opset, _is_safe(node)) if foreign else [copy])
    for value in node.outputs:
        if value.name and value in stored and not value.is_graph_output():
            proto.value_info.add(name=value.name, type=stored[value])


def _is_safe(node: ir.Node) -> bool:
    """Return whether ONNX's inference survives ``node``: anything but a Slice of data.

    Of a Slice it asserts that no dimension is negative, as one behind a kernel larger than its image is, nor an empty
    one walked backwards. Slices of shapes are safe, and needed as they are, since data propagates through them.
    """
    if node.op_type != "Slice" or len(node.inputs) < 3:
        return True
    value = node.inputs[0]
    for _ in range(_CHAIN):
        if value is None or (producer := value.producer()) is None:
            return value is None or value.is_initializer()
        if producer.op_type in ("Shape", "Constant"):
            return len(node.inputs) < 5 or _is_forward(node.inputs[4])
        if producer.op_type not in ("Cast", "Identity", "Slice", "Squeeze", "Unsqueeze"):
            return False
        value = producer.inputs[0] if producer.inputs else None
    return False


def _is_forward(steps: ir.Value | None) -> bool:
    """Return whether the steps of a Slice are sure to be positive."""
    if steps is None:
        return True
    producer = steps.producer()
    numbers = steps.const_value if producer is None else onnx_attributes.tensor(producer, "value")
    return numbers is not None and numbers.size <= _DATA_LIMIT and bool((numbers.numpy() > 0).all())
