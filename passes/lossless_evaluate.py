"""Runs one operator of a model on given arrays in ONNX Runtime, so that its numbers are those that inference makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.passes.lossless_facts import Array
from graphprune.passes.tensors import bodies, is_constant

__all__ = ["constant_tensor", "evaluate"]

_WEIGHT_STEPS = frozenset({
    "Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""What may lie between a stored weight and the operator that multiplies by it."""


def evaluate(model: ir.Model, node: ir.Node, arrays: Sequence[Array | None]) -> Array | None:
    """The first output of ``node`` for these operands (None: left out); None where ONNX Runtime cannot compute it."""
    import onnxruntime

    if any(True for _ in bodies(node)):
        return None
    names = ["" if array is None else f"x{index}" for index, array in enumerate(arrays)]
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=names, output=["y"])
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    graph = onnx.GraphProto(name="one", node=[proto], output=[onnx.ValueInfoProto(name="y")])
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    try:
        for name, array in feeds.items():
            graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        whole = onnx.ModelProto(ir_version=max(4, min(model.ir_version, 10)), graph=graph)
        for domain, version in model.opset_imports.items():
            whole.opset_import.add(domain=domain, version=version)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result = session.run(None, {})[0]
    except Exception:  # ONNX Runtime's errors share no base class
        return None
    return result if isinstance(result, np.ndarray) else None


def constant_tensor(model: ir.Model, value: ir.Value | None, limit: int) -> ir.TensorProtocol | None:
    """The tensor that ``value`` always is: an initializer, or one that is dequantised, cast or moved; else None.

    Nothing larger than ``limit`` bytes is computed.
    """
    if value is None:
        return None
    if is_constant(value):
        return value.const_value
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in _WEIGHT_STEPS:
        return None
    tensors = [constant_tensor(model, operand, limit) for operand in node.inputs]
    if any(t is None and operand is not None for t, operand in zip(tensors, node.inputs, strict=True)):
        return None
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) > limit:
        return None
    array = evaluate(model, node, [None if tensor is None else tensor.numpy() for tensor in tensors])
    return None if array is None else ir.tensor(array)
