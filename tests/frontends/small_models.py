"""A small convolutional network, and the ways of storing it that the file tests need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


def small_network(seed: int = 0) -> onnx.ModelProto:
    """Return Conv -> Relu -> GlobalAveragePool -> Flatten -> Gemm with symbolic batch, documentation and metadata."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv.weight": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.standard_normal(16).astype(np.float32),
        "head.weight": rng.standard_normal((10, 16)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], name="conv", doc_string="first", group=1),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("Gemm", ["d", "head.weight"], ["y"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        doc_string="a graph",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 3)],
        ir_version=8,
        producer_name="tests",
        doc_string="a model",
    )
    helper.set_model_props(model, {"key": "value"})
    return model


def write_external(model: onnx.ModelProto, folder: Path, data: str = "weights.bin") -> Path:
    """Write a model to `folder` with every weight in one data file, and return the path of the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    path = folder / "external.onnx"
    onnx.save_model(copy, path, save_as_external_data=True, location=data, size_threshold=0, convert_attribute=False)
    return path
