from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import operators, parse, run

from graphprune.errors import ModelError
from graphprune.passes import canonicalize
from graphprune.passes.lift import (
    inline_functions,
    lift_constants,
    lift_subgraph_initializers,
    raise_ir_version,
    take_weights_out_of_inputs,
)

X = np.array([-1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ("value = float[2] {3.0, 4.0}", np.array([3, 4], np.float32)),
        ("value_float = 3.0", np.array(3, np.float32)),
        ("value_floats = [3.0, 4.0]", np.array([3, 4], np.float32)),
        ("value_int = 3", np.array(3, np.int64)),
        ("value_ints = [3, 4]", np.array([3, 4], np.int64)),
    ],
)
def test_each_kind_of_constant_is_lifted(attribute: str, wanted: np.ndarray) -> None:
    model = parse(
        f"agraph (float[2] x) => (float[2] y) {{ c = Constant<{attribute}>()\n d = Cast<to = 1>(c)\n y = Mul(x, d) }}"
    )
    assert lift_constants(model) == 1
    assert lift_constants(model) == 0
    value = model.graph.initializers["c"]
    np.testing.assert_array_equal(value.const_value.numpy(), wanted)
    assert value.dtype == ir.DataType.from_numpy(wanted.dtype)
    np.testing.assert_array_equal(run(model, {"x": X})[0], X * wanted.astype(np.float32))


def test_strings_are_lifted() -> None:
    model = parse(
        'agraph (float[2] x) => (string[2] y) { c = Constant<value_strings = ["a", "b"]>()\n y = Identity(c) }'
    )
    assert lift_constants(model) == 1
    assert run(model, {"x": X})[0].tolist() == ["a", "b"]


def test_a_constant_that_is_an_output_stays() -> None:
    model = parse(
        "agraph (float[2] x) => (float[2] y, float c) { c = Constant<value = float {2.0}>()\n y = Mul(x, c) }"
    )
    assert not canonicalize(model).counts.get("lifted constants")
    assert operators(model) == ["Constant", "Mul"]
    assert run(model, {"x": X})[1] == 2


BRANCHES = """agraph (bool b, float[2] x) => (float[2] y) {
  y = If (b) <
    then_branch = first () => (float[2] r1) <float w = {3.0}> { r1 = Mul(x, w) },
    else_branch = second () => (float[2] r2) <float w = {5.0}> { c = Constant<value = float {1.0}>()
      s = Add(x, c)
      r2 = Mul(s, w) }
  >
}"""


def test_constants_of_branches_move_to_the_main_graph_under_their_own_names() -> None:
    model = parse(BRANCHES)
    feeds = [{"b": np.array(b), "x": X} for b in (True, False)]
    wanted = [run(model, feed)[0] for feed in feeds]
    assert lift_constants(model) == 1
    assert lift_subgraph_initializers(model) == 3
    assert sorted(model.graph.initializers) == ["c", "w", "w_1"]
    for feed, array in zip(feeds, wanted, strict=True):
        np.testing.assert_array_equal(run(model, feed)[0], array)


def test_an_initializer_that_a_branch_returns_stays() -> None:
    model = parse("""agraph (bool b, float[2] x) => (float[2] y) {
      y = If (b) <then_branch = first () => (float[2] r1) <float[2] r1 = {3.0, 4.0}> { u = Relu(x) },
                  else_branch = second () => (float[2] r2) { r2 = Neg(x) }>
    }""")
    canonicalize(model)
    assert run(model, {"b": np.array(True), "x": X})[0].tolist() == [3, 4]
    assert run(model, {"b": np.array(False), "x": X})[0].tolist() == [1, -2]


def test_weights_leave_the_inputs_of_old_models() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 3, opset_import: ["" : 8]>
      agraph (float[2] x, float[2] w) => (float[2] y) <float[2] w = {3.0, 4.0}> { y = Mul(x, w) }""")
    model = ir.from_proto(proto)
    assert take_weights_out_of_inputs(model) == ("w",)
    assert take_weights_out_of_inputs(model) == ()
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert (raise_ir_version(model), raise_ir_version(model)) == (1, 0)
    onnx.checker.check_model(ir.to_proto(model))
    assert run(model, {"x": X})[0].tolist() == [-3, 8]


FUNCTIONS = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
agraph (float[2] x) => (float[2] y) { a = local.twice(x)\n y = local.twice<k = 3.0>(a) }
<opset_import: ["" : {opset}], domain: "local">
twice <k: float = 2.0> (v) => (r) { c = Constant<value_float: float = @k>()\n d = CastLike(c, v)\n r = Mul(v, d) }
"""


def test_local_functions_are_inlined_with_their_attributes() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTIONS.replace("{opset}", "17")))
    wanted = run(model, {"x": X})[0]
    assert inline_functions(model) == 1
    assert not model.functions
    np.testing.assert_array_equal(run(model, {"x": X})[0], wanted)
    canonicalize(model)
    assert operators(model) == ["Mul", "Mul"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], wanted)


def test_a_function_of_another_operator_set_stays_a_call() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTIONS.replace("{opset}", "16")))
    wanted = run(model, {"x": X})[0]
    assert not canonicalize(model).counts.get("inlined functions")
    assert operators(model) == ["twice", "twice"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], wanted)


def test_functions_that_call_each_other_are_an_error() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTIONS.replace("{opset}", "17")))
    (function,) = model.functions.values()
    function.append(ir.node("twice", [function.inputs[0]], domain="local"))
    with pytest.raises(ModelError, match="local functions cannot be inlined: Cyclic"):
        inline_functions(model)
