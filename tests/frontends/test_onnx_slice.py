"""Numbers in a graph that a cut rewrites."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import graphprune


def _computed_target(opset: int) -> onnx.ModelProto:
    """A Reshape to ``[batch, 8, 16]`` of which only the batch is read off the tensor."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 6, 1, 1)).astype(np.float32),
        "v": rng.normal(size=(8, 5)).astype(np.float32),
        "b": rng.normal(size=5).astype(np.float32),
        "zero": np.array(0),
        "channels": np.array([8]),
        "space": np.array([16]),
    }
    inputs = ", ".join(f"{_kind(a)}[{','.join(map(str, a.shape))}] {name}" for name, a in weights.items())
    model: onnx.ModelProto = parser.parse_model(
        f"""
        <ir_version: 3, opset_import: ["" : {opset}]>
        g (float[N,6,4,4] x, {inputs}) => (float[N,5] y) {{
            h = Conv<kernel_shape=[1,1]>(x, w)
            sizes = Shape(h)
            one = Gather<axis=0>(sizes, zero)
            batch = Unsqueeze<axes=[0]>(one)
            target = Concat<axis=0>(batch, channels, space)
            r = Reshape(h, target)
            m = ReduceMean<axes=[2],keepdims=0>(r)
            y = Gemm(m, v, b)
        }}""".replace("float[] zero", "float zero")
    )
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def _kind(array: np.ndarray) -> str:
    return "float" if array.dtype == np.float32 else "int64"


@pytest.mark.parametrize("opset", [7, 8, 11])
def test_a_number_in_a_computed_shape_follows_one_cut_after_another(opset: int) -> None:
    once = graphprune.prune(_computed_target(opset), ratio=0.5)
    assert once.verified
    assert once.params.after < 0.6 * once.params.before
    twice = graphprune.prune(once.model, ratio=0.5)
    assert twice.verified
    assert twice.params.after < 0.6 * once.params.after + 5
    again = graphprune.prune(_computed_target(opset), pipeline="prune{ratio=0.5}, prune{ratio=0.5}, verify")
    assert again.verified
    assert again.params.after == twice.params.after
