from __future__ import annotations

import numpy as np
import pytest
from onnx_models import operators, parse, run

from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.passes import canonicalize
from graphprune.passes.noops import name_cast_types, remove_noops

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
CONSTANTS = {
    "same": np.array([2, 3]),
    "keep": np.array([0, -1]),
    "other": np.array([3, 2]),
    "ones": np.array([1, 1]),
    "none": np.zeros(4, np.int64),
    "some": np.array([0, 1, 0, 0]),
    "ratio": np.array(0.5, np.float32),
    "off": np.array(False),
}


@pytest.mark.parametrize(
    ("opset", "line"),
    [
        (17, "a = Identity(x)"),
        (7, "a = Dropout<ratio = 0.5>(x)"),
        (10, "a, mask = Dropout<ratio = 0.5>(x)"),
        (17, "a = Dropout(x, ratio)"),
        (17, "a = Dropout(x, ratio, off)"),
        (17, "a = Cast<to = 1>(x)"),
        (17, "a = CastLike(x, ratio)"),
        (17, "a = Transpose<perm = [0, 1]>(x)"),
        (17, "a = Reshape(x, same)"),
        (17, "a = Reshape(x, keep)"),
        (17, "a = Flatten<axis = 1>(x)"),
        (17, "a = Expand(x, ones)"),
        (17, "a = Concat<axis = 0>(x)"),
        (17, "a = Sum(x)"),
        (17, "a = Pad(x, none)"),
        (9, "a = Pad<pads = [0, 0, 0, 0]>(x)"),
    ],
)
def test_what_hands_its_input_on_is_removed(opset: int, line: str) -> None:
    text = f"agraph (float[2, 3] x) => (float[2, 3] y, float[2, 3] a) {{ r = Relu(x)\n {line}\n y = Neg(a) }}"
    model = parse(text.replace("(x,", "(r,").replace("(x)\n y", "(r)\n y"), opset, **CONSTANTS)
    wanted = run(model, {"x": X})
    infer_shapes(model)
    name_cast_types(model)
    assert remove_noops(model) == 1
    assert operators(model) == ["Relu", "Neg"]
    assert [value.name for value in model.graph.outputs] == ["y", "a"]
    for a, b in zip(wanted, run(model, {"x": X}), strict=True):
        np.testing.assert_array_equal(a, b)
    assert remove_noops(model) == 0


@pytest.mark.parametrize(
    "line",
    [
        "a = Transpose<perm = [1, 0]>(x)",
        "a = Reshape(x, other)",
        "a = Flatten<axis = 0>(x)",
        "a = Pad(x, some)",
        "a = Cast<to = 11>(x)",
        "a = Sum(x, x)",
    ],
)
def test_what_changes_something_stays(line: str) -> None:
    model = parse(f"agraph (float[2, 3] x) => (b) {{ {line}\n b = Neg(a) }}", **CONSTANTS)
    infer_shapes(model)
    assert remove_noops(model) == 0


def test_a_reshape_to_its_own_symbolic_shape_is_removed() -> None:
    model = parse("agraph (float[N, 3] x) => (float[N, 3] y) { a = Reshape(x, shape)\n y = Neg(a) }",
                  shape=np.array([-1, 3]))  # fmt: skip
    canonicalize(model)
    assert operators(model) == ["Neg"]
    assert str(model.graph.outputs[0].shape) == "[N,3]"


def test_dropout_that_trains_stays() -> None:
    model = parse("agraph (float[2, 3] x) => (float[2, 3] y) { y = Dropout(x, ratio, on) }",
                  ratio=np.array(0.5, np.float32), on=np.array(True))  # fmt: skip
    assert not remove_noops(model)
    with_mask = parse("agraph (float[2, 3] x) => (float[2, 3] y, bool[2, 3] m) { y, m = Dropout(x) }")
    assert not remove_noops(with_mask)


def test_names_of_outputs_that_nothing_else_can_take_keep_their_node() -> None:
    model = parse(
        """agraph (float[2, 3] x, bool b) => (float[2, 3] y, float[2, 3] z, float[2, 3] r, s, t) {
        y = Identity(x)
        z = Identity(w)
        r = Relu(x)
        s = Identity(r)
        t = If (b) <then_branch = first () => (float[2, 3] p) { p = Identity(r) },
                    else_branch = second () => (float[2, 3] q) { q = Neg(x) }>
        }""",
        w=X,
    )
    feeds = {"x": X, "b": np.array(True)}
    wanted = run(model, feeds)
    canonicalize(model)
    assert operators(model).count("Identity") == 4
    for a, b in zip(wanted, run(model, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not canonicalize(model).modified
