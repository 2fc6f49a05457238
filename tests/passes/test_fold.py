from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import operators, parse, run

from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.passes import canonicalize
from graphprune.passes.fold import fold_constants

W = np.arange(12, dtype=np.float32).reshape(3, 4)
X = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("opset", "chain"),
    [
        (7, "t = Transpose<perm = [1, 0]>(w)"),
        (9, "u = Unsqueeze<axes = [0]>(w)\n s = Squeeze<axes = [0]>(u)\n t = Transpose<perm = [1, 0]>(s)"),
        (11, "a = Slice(w, zero, two, zero)\n b = Slice(w, two, three, zero)\n s = Concat<axis = 0>(a, b)\n"
             "t = Transpose<perm = [1, 0]>(s)"),
        (13, "r = Reshape(w, shape)\n m = Mul(r, half)\n d = Add(m, m)\n s = Squeeze(d, zero)\n"
             "t = Transpose<perm = [1, 0]>(s)"),
        (17, "c = Cast<to = 11>(w)\n s = Cast<to = 1>(c)\n t = Transpose<perm = [1, 0]>(s)"),
        (21, "p = Pow(w, expo)\n q = Sqrt(p)\n t = Transpose<perm = [1, 0]>(q)"),
    ],
)  # fmt: skip
def test_what_constants_alone_determine_becomes_a_constant(opset: int, chain: str) -> None:
    model = parse(
        f"agraph (float[2, 4] x) => (float[2, 3] y) {{ {chain}\n y = MatMul(x, t) }}",
        opset,
        w=W,
        zero=np.array([0]),
        two=np.array([2]),
        three=np.array([3]),
        shape=np.array([1, 3, 4]),
        half=np.array(0.5, np.float32),
        expo=np.array(2, np.float32),
    )
    wanted = run(model, {"x": X})[0]
    canonicalize(model)
    assert operators(model) == ["MatMul"]
    assert sorted(model.graph.initializers) == ["t"]
    np.testing.assert_allclose(run(model, {"x": X})[0], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "line",
    [
        "t = RandomNormalLike(w)",
        "q = QuantizeLinear(w, scale, zero)\n t = DequantizeLinear(q, scale, zero)",
        "k, t = local.unknown(w)",
        "t = Expand(scale, huge)",
    ],
)
def test_what_must_not_or_need_not_be_computed_stays(line: str) -> None:
    model = parse(
        f"agraph (float[3, 4] x) => (float y) {{ {line}\n a = Add(x, t)\n y = ReduceMax<keepdims = 0>(a) }}",
        w=W,
        scale=np.array(0.1, np.float32),
        zero=np.array(0, np.int8),
        huge=np.array([5120, 1, 3, 4]),
    )
    before = operators(model)
    canonicalize(model)
    assert operators(model) == before


def test_a_big_tied_weight_is_not_stored_twice() -> None:
    model = parse(
        """agraph (int64[N] x) => (float[N, 200] y) { e = Gather(w, x)\n t = Transpose<perm = [1, 0]>(w)
        y = MatMul(e, t) }""",
        w=np.ones((200, 128), np.float32),
    )
    infer_shapes(model)
    assert fold_constants(model) == 0
    model.graph[0].replace_input_with(0, model.graph.inputs[0])
    assert fold_constants(model) == 1


def test_an_output_is_not_folded_away() -> None:
    model = parse("agraph (float[3, 4] x) => (float[3, 4] y, float[4, 3] t) { t = Transpose<perm = [1, 0]>(w)\n"
                  "y = Add(x, w) }", w=W)  # fmt: skip
    canonicalize(model)
    np.testing.assert_array_equal(run(model, {"x": W})[1], W.T)


def test_constants_inside_a_loop_body_are_folded() -> None:
    model = parse(
        """agraph (float[4, 3] x) => (float[4, 3] y) <int64 trips = {3}, bool go = {1}> {
      y = Loop (trips, go, x) <body = step (int64 i, bool c, float[4, 3] s) => (bool c2, float[4, 3] s2) {
        c2 = Identity(c)\n t = Transpose<perm = [1, 0]>(w)\n s2 = Add(s, t) }>
    }""",
        w=W,
    )
    canonicalize(model)
    assert operators(model) == ["Loop", "Identity", "Add"]
    np.testing.assert_array_equal(run(model, {"x": W.T})[0], 4 * W.T)


def test_what_onnxruntime_cannot_run_goes_to_the_reference() -> None:
    weights = W.astype(ml_dtypes.bfloat16)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, W.shape, weights.tobytes(), raw=True)
    model = parse("agraph (bfloat16[2, 4] x) => (bfloat16[2, 3] y) { t = Transpose<perm = [1, 0]>(w)\n"
                  "a = Abs(t)\n y = MatMul(x, a) }")  # fmt: skip
    proto = ir.to_proto(model)
    proto.graph.initializer.append(tensor)
    model = ir.from_proto(proto)
    canonicalize(model)
    assert operators(model) == ["MatMul"]
    (value,) = model.graph.initializers.values()
    assert value.dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(value.const_value.numpy().astype(np.float32), W.T)


@pytest.mark.parametrize("value", ["", "<value = float[1] {2.5}>", "<value = int64[1] {7}>"])
def test_constant_of_shape_becomes_a_view(value: str) -> None:
    kind = "int64" if "int64" in value else "float"
    model = parse(
        f"agraph ({kind}[1024, 1024] x) => ({kind}[1024, 1024] y) {{ c = ConstantOfShape{value}(shape)\n"
        "y = Add(x, c) }",
        shape=np.array([1024, 1024]),
    )
    canonicalize(model)
    array = model.graph.initializers["c"].const_value.numpy()
    assert array.shape == (1024, 1024)
    assert array.strides == (0, 0)
    x = np.ones((1024, 1024), array.dtype)
    np.testing.assert_array_equal(run(model, {"x": x})[0], x + array)
