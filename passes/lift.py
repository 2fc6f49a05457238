"""Bring every constant of a model into one place: the initializers of the main graph."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from graphprune.errors import ModelError
from graphprune.frontends.onnx_attributes import held
from graphprune.frontends.onnx_walk import graphs, nodes
from graphprune.passes.tensors import Names, alias, rename

__all__ = [
    "inline_functions",
    "lift_constants",
    "lift_subgraph_initializers",
    "raise_ir_version",
    "take_weights_out_of_inputs",
]

_ELEMENTS = {
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
    "value_float": ir.DataType.FLOAT,
    "value_floats": ir.DataType.FLOAT,
    "value_string": ir.DataType.STRING,
    "value_strings": ir.DataType.STRING,
}

_KINDS = {
    "value": ir.AttributeType.TENSOR,
    "value_int": ir.AttributeType.INT,
    "value_ints": ir.AttributeType.INTS,
    "value_float": ir.AttributeType.FLOAT,
    "value_floats": ir.AttributeType.FLOATS,
    "value_string": ir.AttributeType.STRING,
    "value_strings": ir.AttributeType.STRINGS,
}

_FREE_INITIALIZERS = 4
"""The IR version from which on initializers need not be graph inputs."""


def inline_functions(model: ir.Model) -> int:
    """Replace calls of the model's local functions by their bodies; returns how many functions are gone.

    A function that imports another version of an operator set than the model stays a call.

    Raises:
        ModelError: when functions call each other in a circle.
    """
    before = len(model.functions)
    if not before:
        return 0

    def agrees(function: ir.Function) -> bool:
        imports = model.opset_imports
        return all(imports.get(domain, version) == version for domain, version in function.opset_imports.items())

    try:
        common.InlinePass(criteria=agrees)(model)
    except ir.passes.PreconditionError as error:
        raise ModelError(f"local functions cannot be inlined: {error}") from error
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return before - len(model.functions)


def take_weights_out_of_inputs(model: ir.Model) -> tuple[str, ...]:
    """Make initializers that are also graph inputs plain initializers; returns their names.

    Exporters before IR version 4 had to list every weight as an input. A caller could override such a weight; from
    here on it is a constant.
    """
    names = [value.name or "" for graph in graphs(model) for value in graph.inputs if value.is_initializer()]
    common.RemoveInitializersFromInputsPass()(model)
    return tuple(names)


def raise_ir_version(model: ir.Model) -> int:
    """Lift the model to an IR version in which initializers need not be inputs; returns 1 if it was older."""
    if model.ir_version >= _FREE_INITIALIZERS:
        return 0
    model.ir_version = _FREE_INITIALIZERS
    return 1


def lift_constants(model: ir.Model) -> int:
    """Turn Constant nodes into initializers of their graph; one that is a graph output itself stays a node."""
    liftable = [node for node in nodes(model) if _liftable(node)]
    for node in liftable:
        output, graph = node.outputs[0], node.graph
        name = output.name
        assert isinstance(graph, ir.Graph)
        assert name is not None
        tensor = _tensor(next(iter(node.attributes.values())))
        output.name = None
        lifted = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=alias(tensor, name),
            metadata_props=dict(output.metadata_props),
        )
        graph.register_initializer(lifted)
        output.replace_all_uses_with(lifted)
        graph.remove(node, safe=True)
    return len(liftable)


def lift_subgraph_initializers(model: ir.Model) -> int:
    """Move the initializers of subgraphs to the main graph, except those that a subgraph returns."""
    names = Names(model)
    count = 0
    for graph in graphs(model):
        if graph is model.graph:
            continue
        for value in list(graph.initializers.values()):
            if value.is_graph_output() or value.is_graph_input() or value.const_value is None:
                continue
            assert value.name is not None
            del graph.initializers[value.name]
            if value.name in model.graph.initializers:
                rename(value, names.fresh(value.name))
            model.graph.register_initializer(value)
            count += 1
    return count


def _liftable(node: ir.Node) -> bool:
    """Return whether ``node`` is a Constant that holds a dense tensor and is no graph output."""
    if node.op_type != "Constant" or node.domain != "" or len(node.attributes) != 1:
        return False
    (attribute,) = node.attributes.values()
    return (
        attribute.type == _KINDS.get(attribute.name)
        and not attribute.is_ref()
        and isinstance(node.graph, ir.Graph)
        and not node.outputs[0].is_graph_output()
    )


def _tensor(attribute: ir.Attr) -> ir.TensorProtocol:
    """Return what a Constant node's attribute holds."""
    if attribute.name == "value":
        return held(attribute)
    dtype = _ELEMENTS[attribute.name]
    if dtype != ir.DataType.STRING:
        return ir.tensor(attribute.value, dtype=dtype)
    one = attribute.type == ir.AttributeType.STRING
    texts = [text.encode() for text in ([attribute.as_string()] if one else attribute.as_strings())]
    return ir.StringTensor(texts, shape=ir.Shape([] if one else [len(texts)]))
