"""Compute, once and for all, the nodes whose inputs are constants.

All foldable nodes of a round are evaluated by one ONNX Runtime session, so that the numbers are the very ones its own
constant folding gives; what it cannot run goes to ONNX's reference implementation, node by node. ``ConstantOfShape``
becomes a broadcast view, which takes no memory however large it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.frontends import onnx_attributes as attributes
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import is_constant, read_small, replace_by_constant

__all__ = ["fold_constants"]

_KEPT = frozenset({
    "Constant", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan", "SequenceMap",
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout",
})  # fmt: skip
"""Operators that stay: quantisation of weights is information, random ones differ each time, bodies are code."""

_GROWING = frozenset({"Expand", "Tile", "Range", "Pad", "OneHot", "Resize", "Upsample", "CenterCropPad", "EyeLike"})
"""Operators whose results may be of any size, however small their operands are."""

_READ_LIMIT = 32 << 20
"""Bytes of constants that one node may make us read; a larger weight stays behind its Transpose, Reshape or Cast."""

_EXTERNAL_LIMIT = 4 << 20
"""The same for weights that lie in another file."""

_FILL_LIMIT = 1 << 40
"""Elements of the largest view that ConstantOfShape may become."""

_GROWTH = 64 << 10
"""Bytes by which folding one node may make the model larger."""


def fold_constants(model: ir.Model) -> int:
    """Replace the outputs of constant nodes by initializers; returns how many nodes that made unnecessary."""
    chosen: list[ir.Node] = []
    known: set[ir.Value] = set()
    fills = 0
    for node in nodes(model):
        if node.domain != "" or node.op_type in _KEPT or not isinstance(node.graph, ir.Graph):
            continue
        if any(_has_body(attribute) for attribute in node.attributes.values()):
            continue
        inputs = [value for value in node.inputs if value is not None]
        if not all(value in known or is_constant(value) for value in inputs):
            continue
        if not any(output.uses() for output in node.outputs) or any(out.is_graph_output() for out in node.outputs):
            continue
        if node.op_type == "ConstantOfShape":
            fills += _fill(model, node)
        elif _worthwhile(node, inputs, known):
            chosen.append(node)
            known.update(node.outputs)
    return fills + (_replace(model, chosen, known) if chosen else 0)


def _has_body(attribute: ir.Attr) -> bool:
    return attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _fill(model: ir.Model, node: ir.Node) -> int:
    """Turn a ConstantOfShape into a view of its one element."""
    shape = read_small(node.inputs[0])
    if shape is None or (shape < 0).any() or math.prod(map(int, shape)) > _FILL_LIMIT:
        return 0
    tensor = attributes.tensor(node, "value") or ir.tensor(np.zeros(1, np.float32))
    view = np.broadcast_to(tensor.numpy().reshape(()), [int(extent) for extent in shape])
    replace_by_constant(model, node.outputs[0], view, tensor.dtype)
    return 1


def _worthwhile(node: ir.Node, inputs: Sequence[ir.Value], known: set[ir.Value]) -> bool:
    """Return whether folding ``node`` reads little and does not make the model much larger."""
    tensors = [value.const_value for value in inputs if value.const_value is not None and value not in known]
    limit = _EXTERNAL_LIMIT if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors) else _READ_LIMIT
    read = sum(tensor.nbytes for tensor in tensors)
    if read > limit or any(tensor.dtype == ir.DataType.STRING for tensor in tensors):
        return False
    freed = sum(_bytes(value) or 0 for value in inputs if len(value.uses()) == 1 and not value.is_graph_output())
    made = 0
    for output in node.outputs:
        size = _bytes(output)
        if size is None:
            made += 0 if read <= _GROWTH and node.op_type not in _GROWING else _READ_LIMIT
        else:
            made += size
    return made - freed <= _GROWTH


def _bytes(value: ir.Value) -> int | None:
    """Return the size of ``value`` if its shape and type are known."""
    if value.const_value is not None:
        return value.const_value.nbytes
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.bitwidth / 8)


def _replace(model: ir.Model, nodes: list[ir.Node], known: set[ir.Value]) -> int:
    """Evaluate ``nodes`` and replace those of their outputs that other nodes read."""
    inside = set(nodes)
    wanted = [
        output
        for node in nodes
        for output in node.outputs
        if output.name and any(user not in inside for user, _ in output.uses())
    ]
    feeds = {value: None for node in nodes for value in node.inputs if value is not None and value not in known}
    proto = _proto(model, nodes, list(feeds), wanted)
    results = _run_onnxruntime(proto) or _run_reference(proto)
    replaced = 0
    for output in wanted:
        array = results.get(output.name or "")
        if array is None:
            continue
        if output.dtype is not None and array.dtype != output.dtype.numpy():
            continue
        replace_by_constant(model, output, array, output.dtype)
        replaced += 1
    return replaced


def _proto(model: ir.Model, nodes: list[ir.Node], feeds: list[ir.Value], wanted: list[ir.Value]) -> onnx.ModelProto:
    """Return the model of the constant nodes alone."""
    graph = onnx.GraphProto(name="constants")
    graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
    for value in feeds:
        tensor = value.const_value
        assert tensor is not None
        added = graph.initializer.add()
        if isinstance(tensor, ir.ExternalTensor):
            tensor = ir.Tensor(tensor.numpy(), tensor.dtype, name=value.name)
        ir.serde.serialize_tensor_into(added, tensor)
        added.name = value.name or ""
    for value in wanted:
        graph.output.add(name=value.name or "")
    proto = onnx.ModelProto(ir_version=max(4, min(model.ir_version, onnx.IR_VERSION)), graph=graph)
    proto.opset_import.add(domain="", version=model.opset_imports.get("", 1))
    return proto


def _run_onnxruntime(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return all outputs by name, or nothing when ONNX Runtime cannot run the whole model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        results = dict(zip(names, session.run(names, {}), strict=True))
    except Exception:  # folding is no need: what cannot be run here stays in the graph
        return {}
    return {name: array for name, array in results.items() if isinstance(array, np.ndarray)}


def _run_reference(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the outputs that ONNX's reference implementation can compute, by name."""
    from onnx.reference import ReferenceEvaluator

    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if not all(name in values for name in node.input if name):
            continue
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                feeds = {name: values[name] for name in node.input if name}
                results = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)
        except Exception:  # as above, node by node
            continue
        for name, result in zip(node.output, results, strict=False):
            if name and isinstance(result, np.ndarray):
                values[name] = result
    wanted = {output.name for output in proto.graph.output}
    return {name: array for name, array in values.items() if name in wanted}
