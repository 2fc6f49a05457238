from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

import graphprune


def test_among_few_rows_what_counts_much_is_not_taken_for_what_the_others_tell() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(48, 64)).astype(np.float32)
    second = generator.normal(size=(64, 4)).astype(np.float32)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    second[32:] *= 0.5
    weights = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", w]) for n, w in (("x", 48), ("y", 4)))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    # as many rows as features: by itself the covariance says of each feature that the others tell it
    rows = generator.normal(size=(64, 48)).astype(np.float32)
    result = graphprune.prune(model, ratio=0.5, criterion="obs", calibration=rows, compensate="none")
    kept = np.array(result.plan.cuts["second"][0].keep)
    assert len(kept) == 32
    assert (kept < 32).sum() >= 31  # 25 to 29 where the covariance is taken as it is
