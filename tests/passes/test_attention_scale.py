from __future__ import annotations

import numpy as np
import pytest
from onnx_models import parse, run

from graphprune.passes import canonicalize
from graphprune.passes.attention_scale import write_attention_scales

CASES = {
    "standard": ("float[1, 2, 5, 6] x", "y = Attention(x, x, x)", 6),
    "flat": ("float[1, 5, 12] x", "y = Attention<q_num_heads = 3, kv_num_heads = 3>(x, x, x)", 4),
    "fused": ("float[1, 5, 12] x", "y = com.microsoft.Attention<num_heads = 3>(x, w, b)", 4),
    "multi": ("float[1, 5, 12] x", "y = com.microsoft.MultiHeadAttention<num_heads = 3>(x, x, x)", 4),
    "zero": ("float[1, 5, 12] x", "y = com.microsoft.MultiHeadAttention<num_heads = 3, scale = 0.0>(x, x, x)", 4),
    "grouped": (
        "float[1, 5, 32] x",
        "k = Slice(x, zero, half, minus)\n"
        "y, p, q = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(x, k, k, v, v, last, total)",
        8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_default_scale_is_written_out(case: str) -> None:
    operand, text, width = CASES[case]
    rng = np.random.default_rng(0)
    model = parse(
        f"agraph ({operand}) => (y) {{ {text} }}",
        23,
        w=rng.standard_normal((12, 36)).astype(np.float32),
        b=np.zeros(36, np.float32),
        zero=np.array([0]),
        half=np.array([16]),
        minus=np.array([-1]),
        v=np.zeros((1, 2, 0, 8), np.float32),
        last=np.array([4], np.int32),
        total=np.array(5, np.int32),
    )
    x = rng.standard_normal(model.graph.inputs[0].shape.numpy()).astype(np.float32)
    wanted = run(model, {"x": x})[0]
    canonicalize(model)
    attention = model.graph[-1]
    assert attention.attributes["scale"].as_float() == np.float32(1 / np.sqrt(width))
    np.testing.assert_allclose(run(model, {"x": x})[0], wanted, rtol=1e-5, atol=1e-6)
    assert write_attention_scales(model) == 0


def test_a_given_scale_stays() -> None:
    model = parse("agraph (float[1, 2, 5, 6] x) => (y) { y = Attention<scale = 0.3>(x, x, x) }", 23)
    assert write_attention_scales(model) == 0
