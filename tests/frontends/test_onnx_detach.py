"""Tensors taken out of their message say the same, and are written the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from graphprune.frontends.onnx_detach import detach


def model() -> onnx.ModelProto:
    raw = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "raw")
    raw.doc_string = "a weight"
    half = numpy_helper.from_array(np.arange(3, dtype=np.float16), "half")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0])
    packed = helper.make_tensor("packed", TensorProto.INT4, [3], [1, -2, 3])
    words = helper.make_tensor("words", TensorProto.STRING, [1], [b"word"])
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32), "inner"))
    add = helper.make_node("Add", ["raw", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph([constant, add], "g", values[:1], values[1:], [raw, half, typed, packed, words])
    return helper.make_model(graph)


def test_it_is_written_as_before() -> None:
    proto = model()
    before = ir.to_proto(ir.from_proto(proto)).SerializeToString(deterministic=True)
    decoded = ir.from_proto(proto)
    detach(decoded)
    assert ir.to_proto(decoded).SerializeToString(deterministic=True) == before


def test_no_tensor_refers_to_the_message() -> None:
    proto = model()
    decoded = ir.from_proto(proto)
    detach(decoded)
    for tensor in proto.graph.initializer:
        tensor.Clear()
    for node in proto.graph.node:
        node.Clear()
    initializers = {name: value.const_value for name, value in decoded.graph.initializers.items()}
    np.testing.assert_array_equal(initializers["raw"].numpy(), np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(initializers["half"].numpy(), np.arange(3, dtype=np.float16))
    np.testing.assert_array_equal(initializers["typed"].numpy(), [1, 2])
    assert initializers["packed"].numpy().astype(np.int8).tolist() == [1, -2, 3]
    constant = next(iter(decoded.graph)).attributes["value"].value
    np.testing.assert_array_equal(constant.numpy(), [1, 1])
    assert initializers["raw"].numpy() is initializers["raw"].numpy()  # copied once
