from __future__ import annotations

import numpy as np
import pytest
from onnx_models import operators, parse, run

from graphprune.passes import canonicalize

AXES = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "minus": np.array([-1]),
    "i1": np.array(1),
    "i2": np.array(2),
    "heads": np.array([4]),
    "big": np.array([9223372036854775807]),
}


@pytest.mark.parametrize(
    ("opset", "steps"),
    [
        (17, "d = Gather<axis = 0>(s, i2)\n t = Unsqueeze(d, zero)"),
        (11, "d = Gather<axis = 0>(s, i2)\n t = Unsqueeze<axes = [0]>(d)"),
        (9, "t = Slice<starts = [2], ends = [3], axes = [0]>(s)"),
        (17, "t = Slice(s, minus, big)"),
        (17, "e = Slice(s, one, three)\n f = ReduceProd<keepdims = 1>(e)\n g = Div(f, three)\n t = Mul(g, one)"),
        (17, "n = Size(w)\n m = Reshape(n, minus)\n t = Div(m, two)"),
        (17, "d = Gather<axis = 0>(s, two)\n h = Div(d, heads)\n t = Mul(h, heads)"),
        (17, "c = Cast<to = 6>(s)\n d = Cast<to = 7>(c)\n t = Gather<axis = 0>(d, two)"),
        (17, "p = Gather<axis = 0>(s, two)\n q = Neg(p)\n r = Greater(p, q)\n t = Where(r, p, q)"),
        (17, "t = Shape<start = 2, end = 3>(x)"),
    ],
)
def test_arithmetic_on_static_dimensions_becomes_a_constant(opset: int, steps: str) -> None:
    model = parse(
        f"""agraph (float[N, 3, 8] x) => (float[M, 8] y) {{ s = Shape(x)\n {steps}
        u = Concat<axis = 0>(minus, t)\n y = Reshape(x, u) }}""",
        opset,
        w=np.ones(16, np.float32),
        **AXES,
    )
    x = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    wanted = run(model, {"x": x})[0]
    canonicalize(model)
    assert operators(model) == ["Reshape"]
    np.testing.assert_array_equal(run(model, {"x": x})[0], wanted)


def test_a_target_with_a_symbolic_part_stays_computed() -> None:
    model = parse(
        """agraph (float[N, T, 24] x) => (float[N, T, 4, 6] y) {
        s = Shape(x)
        n = Gather<axis = 0>(s, zero)
        t = Gather<axis = 0>(s, one)
        c = Gather<axis = 0>(s, two)
        h = Div(c, heads)
        u = Concat<axis = 0>(n, t, heads, h)
        y = Reshape(x, u) }""",
        **AXES,
    )
    canonicalize(model)
    assert operators(model) == ["Shape", "Gather", "Gather", "Concat", "Reshape"]
    assert model.graph.initializers["h"].const_value.numpy().tolist() == [6]
    assert run(model, {"x": np.ones((2, 5, 24), np.float32)})[0].shape == (2, 5, 4, 6)


def test_the_attention_scale_no_longer_hangs_on_the_width() -> None:
    model = parse(
        """agraph (float[N, T, 24] x) => (float[N, T, 24] y) {
        s = Shape(x)
        c = Gather<axis = 0>(s, i2)
        f = Cast<to = 1>(c)
        r = Sqrt(f)
        y = Div(x, r) }""",
        **AXES,
    )
    canonicalize(model)
    assert operators(model) == ["Div"]
    np.testing.assert_allclose(model.graph[0].inputs[1].const_value.numpy(), np.sqrt(np.float32(24)))


def test_expand_targets_of_exporters_lose_their_detour() -> None:
    """Exporters compare a target with -1, which no dimension equals, whatever its name."""
    model = parse(
        """agraph (float[N, 1, 8] x) => (float[N, 3, 8] y) {
        s = Shape(x)
        n = Gather<axis = 0>(s, zero)
        u = Concat<axis = 0>(n, three, eight)
        e = Equal(u, minus)
        v = Where(e, ones, u)
        y = Expand(x, v) }""",
        eight=np.array([8]),
        ones=np.ones(3, np.int64),
        **AXES,
    )
    canonicalize(model)
    assert "Equal" not in operators(model)
    assert run(model, {"x": np.ones((2, 1, 8), np.float32)})[0].shape == (2, 3, 8)


def test_symbolic_dimensions_are_not_believed_to_be_more_than_they_say() -> None:
    model = parse(
        """agraph (float[N, T] x) => (int64[1] a, bool[1] b, int64[1] c) {
        s = Shape(x)
        n = Gather<axis = 0>(s, zero)
        t = Gather<axis = 0>(s, one)
        d = Sub(n, t)
        a = Neg(d)
        e = Equal(n, t)
        b = Not(e)
        f = Div(n, t)
        c = Mul(f, two) }""",
        **AXES,
    )
    before = operators(model)
    canonicalize(model)
    assert operators(model) == before


def test_a_shape_that_is_an_output_stays_computed() -> None:
    model = parse("agraph (float[2, 3] x) => (int64[2] s, float[2, 3] y) { s = Shape(x)\n y = Relu(x) }")
    canonicalize(model)
    assert operators(model) == ["Shape", "Relu"]
