from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import fingerprint, parse, run

from graphprune.passes.clones import CLONE_OF, clone_shared_constants, merge_clones

X = np.ones((2, 4), np.float32)
SHARED = "agraph (float[2, 4] x) => (float[2, 4] y) { a = Add(x, c)\n b = Mul(a, c)\n y = Add(b, c) }"


def test_each_use_of_a_shared_vector_gets_its_own_initializer() -> None:
    model = parse(SHARED, c=np.arange(4, dtype=np.float32))
    wanted = run(model, {"x": X})[0]
    before = fingerprint(model)
    assert clone_shared_constants(model) == 2
    assert clone_shared_constants(model) == 0
    assert [node.inputs[1].name for node in model.graph] == ["c", "c__use1", "c__use2"]
    values = list(model.graph.initializers.values())
    assert len({id(value.const_value) for value in values}) == 1
    assert [value.metadata_props.get(CLONE_OF) for value in values] == [None, "c", "c"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], wanted)
    assert merge_clones(model) == 2
    assert fingerprint(model) == before


def test_only_clones_that_are_still_alike_merge() -> None:
    model = parse(SHARED, c=np.arange(4, dtype=np.float32))
    clone_shared_constants(model)
    model.graph.initializers["c__use1"].const_value = ir.tensor(np.zeros(4, np.float32), name="c__use1")
    model.graph.initializers["c__use2"].const_value = ir.tensor(np.arange(4, dtype=np.float32), name="other")
    assert merge_clones(model) == 1
    assert [node.inputs[1].name for node in model.graph] == ["c", "c__use1", "c"]
    assert not any(value.metadata_props for value in model.graph.initializers.values())


def test_clones_whose_original_is_gone_take_its_name() -> None:
    model = parse(SHARED, c=np.arange(4, dtype=np.float32))
    clone_shared_constants(model)
    model.graph[0].replace_input_with(1, model.graph.inputs[0])
    del model.graph.initializers["c"]
    assert merge_clones(model) == 1
    assert [node.inputs[1].name for node in model.graph] == ["x", "c", "c"]


@pytest.mark.parametrize(
    ("text", "array", "clones"),
    [
        ("a = MatMul(x, w)\n y = MatMul(a, w)", np.ones((4, 4), np.float32), 0),
        ("a = Mul(x, w)\n y = Mul(a, w)", np.ones((2, 4), np.float32), 1),
        ("a = MatMul(x, w)\n y = Mul(a, w)", np.ones((4, 4), np.float32), 0),
        ("a = Mul(x, w)\n y = Mul(a, w)", np.ones((2000, 4), np.float32), 0),
        ("i = Cast<to = 7>(x)\n a = MatMul(i, w)\n y = MatMul(a, w)", np.ones((4, 4), np.int64), 1),
        ("a = Sum(x, w, w)\n y = Neg(a)", np.ones(4, np.float32), 1),
    ],
)
def test_ties_on_purpose_stay(text: str, array: np.ndarray, clones: int) -> None:
    model = parse(f"agraph (float[N, 4] x) => (y) {{ {text} }}", w=array)
    assert clone_shared_constants(model) == clones


def test_an_initializer_that_is_an_output_is_cloned_for_its_reader() -> None:
    model = parse("agraph (float[2, 4] x) => (float[2, 4] y, float[4] c) { y = Add(x, c) }", c=np.ones(4, np.float32))
    assert clone_shared_constants(model) == 1
    assert model.graph[0].inputs[1].name == "c__use1"
    assert len(run(model, {"x": X})) == 2
    assert merge_clones(model) == 1
    assert model.graph[0].inputs[1].name == "c"


def test_readers_inside_bodies_get_clones_too() -> None:
    model = parse(
        """agraph (bool b, float[2, 4] x) => (float[2, 4] y) {
        a = Add(x, c)
        y = If (b) <then_branch = first () => (float[2, 4] p) { p = Add(a, c) },
                    else_branch = second () => (float[2, 4] q) { q = Mul(a, c) }>
        }""",
        c=np.arange(4, dtype=np.float32),
    )
    wanted = [run(model, {"x": X, "b": np.array(b)})[0] for b in (True, False)]
    assert clone_shared_constants(model) == 2
    for b, array in zip((True, False), wanted, strict=True):
        np.testing.assert_array_equal(run(model, {"x": X, "b": np.array(b)})[0], array)


def test_names_in_use_are_avoided() -> None:
    model = parse(SHARED, c=np.ones(4, np.float32))
    model.graph[0].outputs[0].name = "c__use1"
    clone_shared_constants(model)
    assert [node.inputs[1].name for node in model.graph] == ["c", "c__use2", "c__use3"]
