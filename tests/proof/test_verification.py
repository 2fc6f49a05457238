from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from analysed import analyse
from onnx import numpy_helper

from graphprune.frontends.onnx_slice import slice_model
from graphprune.proof import Verification, masked_original, verify
from graphprune.proof import run as proof_run
from graphprune.proof.compare import compare
from graphprune.proof.run import Runner
from graphprune.selection import Selection
from graphprune.structure import Structure

rng = np.random.default_rng(5)


def weight(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


MLP = """
<ir_version: 8, opset_import: ["" : 17]>
mlp (float[batch, 5] x) => (float[batch, 4] y) {
    h = Gemm(x, w1, b1)
    r = LeakyRelu(h)
    y = Gemm(r, w2, b2)
}
"""
MLP_WEIGHTS = {"w1": weight(5, 8), "b1": weight(8), "w2": weight(8, 4), "b2": weight(4)}
KEPT = [0, 2, 3, 7]


class Case:
    """A model, its structure, and a selection that keeps some positions of one dimension of a tensor."""

    def __init__(self, text: str, weights: dict[str, np.ndarray], place: tuple[str, int], kept: list[int]) -> None:
        proto = onnx.parser.parse_model(text)
        proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        found = analyse(proto)
        self.model, self.structure = found.model, found.structure
        axis = self.structure.axis(*place)
        (leaf,) = self.structure.leaves(axis)
        assert not leaf.pinned, self.structure.pins(axis)
        mask = np.zeros(int(leaf.size), dtype=np.bool_)  # type: ignore[arg-type]
        mask[kept] = True
        self.selection = Selection(self.structure.space, {leaf: mask})

    def slim(self) -> ir.Model:
        slim = self.model.clone()
        assert slice_model(slim, self.structure, self.selection)
        return slim

    def verify(self, slim: ir.Model | None = None, **options: object) -> Verification:
        return verify(self.model, slim or self.slim(), self.structure, self.selection, **options)  # type: ignore[arg-type]


def mlp(**weights: np.ndarray) -> Case:
    return Case(MLP, MLP_WEIGHTS | weights, ("w1", 1), KEPT)


def put(model: ir.Model, name: str, array: np.ndarray) -> None:
    model.graph.initializers[name].const_value = ir.tensor(array)


def without_masks(structure: Structure) -> Structure:
    calls = [replace(call, mixes=[]) for call in structure.calls]
    return Structure(structure.space, structure.tensors, structure.parameters, calls)


# -- what is right ---------------------------------------------------------------------------------------------------


def test_a_right_cut_passes_and_is_visible() -> None:
    case = mlp()
    before = ir.to_proto(case.model).SerializeToString()
    result = case.verify()
    assert result.ok
    assert result.visible_ok
    assert not result.reason
    assert result.max_error < result.tolerance < 1e-4 < result.visible
    assert [output.name for output in result.outputs] == ["y"]
    assert result.runs == 2
    assert result.seconds > 0
    assert ir.to_proto(case.model).SerializeToString() == before


def test_given_inputs_are_used() -> None:
    x = weight(3, 5)
    assert mlp().verify(inputs={"x": x}).runs == 1
    assert mlp().verify(inputs=[{"x": x}, {"x": 2 * x}]).ok


STATISTICS = {
    "layer normalisation": "n = LayerNormalization<axis=-1>(r, s, b)",
    "softmax": "n = Softmax<axis=-1>(r)",
    "mean": "m = ReduceMean<axes=[-1]>(r)  n = Sub(r, m)",
    "largest": "m = ReduceMax<axes=[-1]>(r)  n = Sub(r, m)",
    "norm": "n = LpNormalization<axis=-1>(r)",
}


@pytest.mark.parametrize("body", STATISTICS.values(), ids=STATISTICS.keys())
def test_statistics_see_only_what_is_kept(body: str) -> None:
    text = MLP.replace("y = Gemm(r", f"{body}\n y = Gemm(n")
    weights = MLP_WEIGHTS | ({"s": weight(8), "b": weight(8)} if "(r, s, b)" in body else {})
    case = Case(text, weights, ("w1", 1), KEPT)
    assert case.verify().ok
    unmasked = verify(case.model, case.slim(), without_masks(case.structure), case.selection)
    assert not unmasked.ok


OLD_SOFTMAX = """
<ir_version: 7, opset_import: ["" : 11]>
old (float[2, 3, 4, 4] x) => (float[2, 5, 4, 4] y) {
    h = Conv(x, w1, b1)
    l = LRN<size=3, alpha=0.5>(h)
    s = Softmax<axis=1>(l)
    y = Conv(s, w2)
}
"""


def test_softmax_of_old_and_response_normalisation() -> None:
    weights = {"w1": weight(8, 3, 1, 1), "b1": weight(8), "w2": weight(5, 8, 1, 1)}
    assert Case(OLD_SOFTMAX, weights, ("w1", 0), KEPT).verify().ok


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalisation_loses_members_or_groups(opset: int) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    groups (float[2, 3, 4, 4] x) => (float[2, 5, 4, 4] y) {{
        h = Conv(x, w1)
        n = GroupNormalization<num_groups=2>(h, s, b)
        y = Conv(n, w2)
    }}
    """
    scale = 2 if opset == 18 else 8
    weights = {"w1": weight(8, 3, 1, 1), "w2": weight(5, 8, 1, 1), "s": weight(scale), "b": weight(scale)}
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    found = analyse(proto)
    for leaf in found.structure.leaves(found.structure.axis("w1", 0)):
        mask = np.arange(int(leaf.size)) != 1  # type: ignore[arg-type]
        selection = Selection(found.structure.space, {leaf: mask})
        slim = found.model.clone()
        slice_model(slim, found.structure, selection)
        assert verify(found.model, slim, found.structure, selection).ok


def test_infinite_values_at_removed_positions_do_no_harm() -> None:
    text = MLP.replace("r = LeakyRelu(h)", "r = Exp(h)")
    bias = MLP_WEIGHTS["b1"].copy()
    bias[[1, 4]] = 1e4
    case = Case(text, MLP_WEIGHTS | {"b1": bias}, ("w1", 1), KEPT)
    assert case.verify(poisoned=False, inputs={"x": weight(2, 5)}).max_error < 1e-5


def test_before_where_existed() -> None:
    text = MLP.replace(": 17", ": 7").replace("ir_version: 8", "ir_version: 3")
    case = Case(text, MLP_WEIGHTS, ("w1", 1), KEPT)
    masked = masked_original(case.model, case.structure, case.selection)
    assert "Pad" in {node.op_type for node in masked.graph}
    assert case.verify().ok


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
branches (float[2, 5] x) => (float[2, 4] y) {
    h = MatMul(x, w1)
    s = ReduceSum<keepdims=0>(x)
    c = Greater(s, zero)
    y = If (c) <
        then_branch = yes () => (float[2, 4] t) { t = MatMul(h, w2) },
        else_branch = no () => (float[2, 4] e) { n = Neg(h)  e = MatMul(n, w2) }
    >
}
"""


def test_bodies_are_masked_too() -> None:
    weights = {"w1": weight(5, 8), "w2": weight(8, 4), "zero": np.zeros((), np.float32)}
    case = Case(BRANCHES, weights, ("w1", 1), KEPT)
    masked = masked_original(case.model, case.structure, case.selection)
    bodies = [graph for graph in masked.graphs() if graph is not masked.graph]
    assert all(any(node.op_type == "Where" for node in body) for body in bodies)
    for x in (np.ones((2, 5), np.float32), -np.ones((2, 5), np.float32)):
        assert case.verify(inputs={"x": x}).ok


RECURRENT = """
<ir_version: 8, opset_import: ["" : 14]>
recurrent (float[6, 2, 5] x) => (float[6, 2, 4] y) {
    h, last, cell = LSTM<hidden_size=8>(x, w, r)
    s = Squeeze(h, one)
    y = MatMul(s, w2)
}
"""


def test_recurrent_units() -> None:
    weights = {"w": weight(1, 32, 5), "r": weight(1, 32, 8), "w2": weight(8, 4), "one": np.array([1])}
    assert Case(RECURRENT, weights, ("w2", 0), KEPT).verify().ok


QUANTISED = """
<ir_version: 8, opset_import: ["" : 13]>
quantised (uint8[2, 3, 4, 4] x) => (uint8[2, 5, 4, 4] y) {
    h = QLinearConv(x, scale, zero, w1, scale, none, scale, zero)
    y = QLinearConv(h, scale, zero, w2, scale, none, wide, zero)
}
"""


def test_zero_of_quantised_numbers_is_their_zero_point() -> None:
    weights = {
        "w1": rng.integers(-100, 100, (8, 3, 1, 1)).astype(np.int8),
        "w2": rng.integers(-100, 100, (5, 8, 1, 1)).astype(np.int8),
        "scale": np.array(0.02, np.float32),
        "wide": np.array(0.05, np.float32),
        "zero": np.array(120, np.uint8),
        "none": np.array(0, np.int8),
    }
    result = Case(QUANTISED, weights, ("w1", 0), KEPT).verify()
    assert result.ok
    assert result.max_abs_error == 0


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_compared_in_float32(dtype: type) -> None:
    name = "float16" if dtype is np.float16 else "bfloat16"
    text = MLP.replace("float[", f"{name}[")
    proto = onnx.parser.parse_model(text)
    for key, array in MLP_WEIGHTS.items():
        proto.graph.initializer.append(ir.to_proto(ir.tensor(array.astype(dtype), name=key)))
    found = analyse(proto)
    (leaf,) = found.structure.leaves(found.structure.axis("w1", 1))
    selection = Selection(found.structure.space, {leaf: np.isin(np.arange(8), KEPT)})
    slim = found.model.clone()
    slice_model(slim, found.structure, selection)
    result = verify(found.model, slim, found.structure, selection)
    assert result.ok
    assert result.max_error < 1e-6


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("rows", [[0, 2, 3, 6], [0, 3, 2, 7]], ids=["off by one", "out of order"])
def test_wrong_positions_fail(rows: list[int], weights: bool) -> None:
    case = mlp()
    slim = case.slim()
    put(slim, "w2", MLP_WEIGHTS["w2"][rows])
    result = case.verify(slim, weights=weights)
    assert not result.ok
    assert ("parameter 'w2'" if weights else "output 'y' differs") in result.reason


def test_a_bias_that_was_not_cut_fails() -> None:
    case = mlp()
    slim = case.slim()
    put(slim, "b1", MLP_WEIGHTS["b1"])
    assert "the slim model cannot be run" in case.verify(slim, weights=False).reason


def test_an_operator_that_reads_removed_positions_fails() -> None:
    case = mlp()
    result = verify(case.model, case.slim(), without_masks(case.structure), case.selection)
    assert not result.ok
    assert "output 'y' differs" in result.reason


def test_it_fails_even_where_the_removed_positions_hold_zeros() -> None:
    gone = [1, 4, 5, 6]
    dead = {name: MLP_WEIGHTS[name].copy() for name in ("w1", "b1")}
    dead["w1"][:, gone] = 0
    dead["b1"][gone] = 0
    case = mlp(**dead)
    structure = without_masks(case.structure)
    result = verify(case.model, case.slim(), structure, case.selection)
    assert not result.ok
    assert "depends on what was removed" in result.reason
    plain = verify(case.model, case.slim(), structure, case.selection, poisoned=False, weights=False)
    assert plain.max_error < 1e-6


def test_a_weight_that_no_input_reaches_is_still_compared() -> None:
    text = MLP.replace("LeakyRelu", "Relu")
    bias = MLP_WEIGHTS["b1"].copy()
    bias[3] = -1e6
    case = Case(text, MLP_WEIGHTS | {"b1": bias}, ("w1", 1), KEPT)
    slim = case.slim()
    rows = MLP_WEIGHTS["w2"][KEPT].copy()
    rows[KEPT.index(3)] += 1
    put(slim, "w2", rows)
    assert "parameter 'w2' is not the kept part" in case.verify(slim).reason
    assert case.verify(slim, weights=False).ok


# -- what shows nothing ----------------------------------------------------------------------------------------------


def test_dead_positions_may_go() -> None:
    w2 = MLP_WEIGHTS["w2"].copy()
    w2[[1, 4, 5, 6]] = 0
    case = mlp(w2=w2)
    result = case.verify()
    assert result.ok
    assert result.random_weights
    own = case.verify(weights=False)
    assert not own.ok
    assert max(own.visible, own.max_error) < own.tolerance
    assert case.verify(expect_visible=False).ok
    assert not mlp().verify(expect_visible=False).ok


def test_equal_weights_are_replaced_by_random_ones() -> None:
    flat = {"w1": np.full((5, 8), 0.1, np.float32), "w2": np.full((8, 4), 0.0, np.float32)}
    case = mlp(**flat)
    assert case.verify().random_weights
    assert case.verify().ok
    unmasked = verify(case.model, case.slim(), without_masks(case.structure), case.selection)
    assert not unmasked.ok


def test_an_output_that_nothing_changes_proves_nothing() -> None:
    text = MLP.replace("y = Gemm(r, w2, b2)", "g = Gemm(r, w2, b2)  z = Sub(g, g)  e = Exp(z)  y = Add(e, b2)")
    result = Case(text, MLP_WEIGHTS, ("w1", 1), KEPT).verify()
    assert not result.ok
    assert not result.visible_ok
    assert "nothing was shown" in result.reason


def test_a_model_that_does_not_run_says_so() -> None:
    text = MLP.replace(": 17]", ': 17, "acme" : 1]').replace("LeakyRelu(h)", "LeakyRelu(h)  u = acme.Unknown(x)")
    text = text.replace("(float[batch, 4] y)", "(float[batch, 4] y, float[batch, 4] u)")
    case = Case(text, MLP_WEIGHTS, ("w1", 1), KEPT)
    assert case.verify().reason.startswith("the original cannot be run: ")


# -- tolerances ------------------------------------------------------------------------------------------------------


def test_errors_are_scaled_by_what_they_belong_to() -> None:
    coordinates, scores = np.linspace(0, 300, 100), np.linspace(0, 0.5, 100)
    a = np.stack([coordinates, scores], axis=-1).astype(np.float32)
    b = a.copy()
    b[50, 1] += 0.01
    (difference,) = compare(["boxes"], [a], [b])
    assert difference.error > 0.01
    assert difference.absolute == pytest.approx(0.01, rel=1e-3)
    (swapped,) = compare(["nan"], [np.array([np.nan, 1])], [np.array([1, np.nan])])
    assert swapped.error == np.inf
    (equal,) = compare(["nan"], [np.array([np.nan, 1, 2])], [np.array([np.nan, 1, 2])])
    assert equal.error == 0
    assert equal.finite


def test_an_ill_conditioned_network_gets_the_tolerance_that_its_rounding_needs() -> None:
    text = MLP.replace("y = Gemm(r, w2, b2)", "g = Gemm(r, w2, b2)  f = Add(g, big)  y = Sub(f, big)")
    case = Case(text, MLP_WEIGHTS | {"big": np.array([3e3], np.float32)}, ("w1", 1), KEPT)
    result = case.verify()
    assert result.ok
    assert result.tolerance < 1e-2 < result.visible


# -- large models ----------------------------------------------------------------------------------------------------


def test_segments_compute_what_the_whole_computes() -> None:
    case = mlp()
    x = weight(3, 5)
    whole, pieces = Runner(case.model), Runner(case.model, limit=1)
    assert len(whole.segments) == 1
    assert len(pieces.segments) > 1
    np.testing.assert_array_equal(whole({"x": x})[0], pieces({"x": x})[0])


def test_segments_pass_outer_values_into_bodies() -> None:
    weights = {"w1": weight(5, 8), "w2": weight(8, 4), "zero": np.zeros((), np.float32)}
    case = Case(BRANCHES, weights, ("w1", 1), KEPT)
    x = weight(2, 5)
    np.testing.assert_array_equal(Runner(case.model)({"x": x})[0], Runner(case.model, limit=1)({"x": x})[0])


def test_mapped_weights(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_run, "EMBEDDED_BYTES", 16)
    proto = ir.to_proto(mlp().model)
    ir.save(ir.from_proto(proto), f"{tmp_path}/m.onnx", external_data="m.data", size_threshold_bytes=0)
    loaded = ir.load(f"{tmp_path}/m.onnx")
    assert isinstance(loaded.graph.initializers["w1"].const_value, ir.ExternalTensor)
    case = mlp()
    case.model = loaded
    assert case.verify().ok
