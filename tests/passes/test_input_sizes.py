"""Symbolic sizes computed from tensors that can be cut are read off the inputs instead."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphprune

HEADS, WIDTH = 4, 3


def _folded_heads() -> onnx.ModelProto:
    """Attention-like: heads are folded into the batch, which is found again by dividing by their literal number."""
    rng = np.random.default_rng(0)
    floats = {"w": (6, HEADS * WIDTH), "o": (HEADS * WIDTH, 5)}
    integers = {
        "split": [0, 0, HEADS, WIDTH],
        "fold": [-1, 7, WIDTH],
        "zero": [0],
        "four": [HEADS],
        "rest": [HEADS, 7, WIDTH],
        "merge": [0, 0, HEADS * WIDTH],
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Reshape", ["p", "split"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "fold"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["bh"], axis=0),
        helper.make_node("Div", ["bh", "four"], ["b"]),
        helper.make_node("Concat", ["b", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["r", "target"], ["u"]),
        helper.make_node("Transpose", ["u"], ["v"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["v", "merge"], ["m"]),
        helper.make_node("MatMul", ["m", "o"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in floats.items()]
    tensors += [numpy_helper.from_array(np.asarray(v, dtype=np.int64), n) for n, v in integers.items()]
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 7, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7, 5])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_heads_folded_into_the_batch_can_be_cut() -> None:
    result = graphprune.prune(_folded_heads(), ratio=0.5)
    assert result.verified
    shapes = {value.name: tuple(value.const_value.shape) for value in result.model.graph.initializers.values()}  # type: ignore[union-attr]
    assert shapes["w"] == (6, 2 * 2)
    assert shapes["o"] == (2 * 2, 5)
