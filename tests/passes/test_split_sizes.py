"""Splits into equal parts say their sizes after canonicalisation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune


def _fused(opset: int) -> onnx.ModelProto:
    """``y = (q + k) v`` with q, k and v the thirds of one projection."""
    rng = np.random.default_rng(0)
    weights = {"w": (6, 24), "wq": (8, 5), "wv": (8, 5)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Split", ["p"], ["q", "k", "v"], axis=-1, **({"num_outputs": 3} if opset >= 18 else {})),
        helper.make_node("Add", ["q", "k"], ["s"]),
        helper.make_node("MatMul", ["s", "wq"], ["a"]),
        helper.make_node("MatMul", ["v", "wv"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_parts_of_an_equal_split_are_cut_each_by_itself(opset: int) -> None:
    assert len(graphprune.inspect(_fused(opset)).structure.groups) == 2
    result = graphprune.prune(_fused(opset), ratio=0.5, per_group={"wv:0": 0.25})
    assert result.verified
    split = next(node for node in result.model.graph if node.op_type == "Split")
    assert [value.shape[-1] for value in split.outputs] == [4, 4, 6]  # type: ignore[index]
