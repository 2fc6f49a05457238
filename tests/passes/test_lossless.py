from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import LIGHT, corpus, parse, run
from planted_filters import KINDS, plant
from random_graphs import random_inputs, random_model

from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read
from graphprune.models.reference import resnet18, shufflenet_v2
from graphprune.passes import Context, Lossless, Report, canonicalize
from graphprune.proof import verify

RNG = np.random.default_rng(0)
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}  # sums of at most 100 float32 products of magnitude one


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


@dataclass
class Result:
    before: ir.Model
    model: ir.Model
    report: Report
    context: Context

    def size(self, name: str) -> list[int]:
        return list(self.model.graph.initializers[name].shape)

    def outputs(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        feeds = random_inputs(ir.to_proto(self.before))
        return run(self.before, feeds), run(self.model, feeds)

    def check(self, exact: bool = False) -> None:
        for old, new in zip(*self.outputs(), strict=True):
            assert np.ptp(old) > 0
            if exact:
                np.testing.assert_array_equal(new, old)
            else:
                np.testing.assert_allclose(new, old, **ROUNDING)


def lossless(model: ir.Model, **options: object) -> Result:
    canonicalize(model)
    before, context = model.clone(), Context()
    report = Lossless(**options)(model, context)
    assert report.modified == bool(report.counts) == bool(context.decisions)
    assert not Lossless(**options)(model).modified
    return Result(before, model, report, context)


def convs(between: str, second: str, **weights: np.ndarray) -> ir.Model:
    first = "a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)"
    text = f"agraph (float[2, 3, 6, 6] x) => (float[2, 2, h, w] y) {{ {first}\n{between}\n{second} }}"
    return parse(text, **weights)


PADDED = "y = Conv<pads = [1, 1, 1, 1]>(z, w2)"
BARE = "y = Conv(z, w2)"


def weights(*, rows: Mapping[int, float] | None = None) -> dict[str, np.ndarray]:
    """Two convolutions; the filters of ``rows`` hold nothing but a bias."""
    w = {"w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(2, 8, 3, 3)}
    for row, bias in (rows or {}).items():
        w["w1"][row], w["b1"][row] = 0, bias
    return w


def test_filters_that_relu_silences_go_without_any_change() -> None:
    result = lossless(convs("z = Relu(a)", PADDED, **weights(rows={1: 0.0, 4: -0.5, 6: 0.5})))
    assert result.size("w1") == [6, 3, 3, 3]
    assert result.size("w2") == [2, 6, 3, 3]
    assert result.report.counts["dead, constant or unread positions"] == 2
    result.check(exact=True)
    (decision,) = result.context.decisions
    assert decision.lossless
    assert decision.by == "lossless"


@pytest.mark.parametrize("scale", [1e-3, 0.3])
def test_what_bounds_prove_dead_goes(scale: float) -> None:
    """Behind activations from 0 to 6, small weights cannot lift a negative bias above 0; larger ones might."""
    w = weights() | {"d": normal(8, 1, 3, 3), "bd": normal(8), "low": np.float32(0), "high": np.float32(6)}
    w["d"][[2, 5]] *= scale / np.abs(w["d"][[2, 5]]).max()
    w["bd"][[2, 5]] = -0.5
    between = "c = Clip(a, low, high)\n e = Conv<group = 8, pads = [1, 1, 1, 1]>(c, d, bd)\n z = Clip(e, low, high)"
    result = lossless(convs(between, PADDED, **w))
    assert result.size("d") == [6 if scale < 0.01 else 8, 1, 3, 3]
    if scale < 0.01:
        result.check(exact=True)


def test_a_constant_moves_into_a_new_bias_where_nothing_is_padded() -> None:
    result = lossless(convs("z = Sigmoid(a)", BARE, **weights(rows={1: 0.0, 4: -0.5})))
    assert result.size("w1") == [6, 3, 3, 3]
    (conv,) = [node for node in result.model.graph if node.outputs[0].name == "y"]
    assert len(conv.inputs) == 3
    result.check()
    assert not lossless(convs("z = Sigmoid(a)", BARE, **weights(rows={1: 0.0})), constants=False).report.modified


def test_of_constants_before_padding_one_stays() -> None:
    """Sigmoid makes 0.62, 0.5 and 0.27 of them, each a multiple of the other."""
    assert not lossless(convs("z = Sigmoid(a)", PADDED, **weights(rows={1: 0.5}))).report.modified
    result = lossless(convs("z = Sigmoid(a)", PADDED, **weights(rows={1: 0.5, 4: 0.0, 6: -1.0})))
    assert result.size("w1") == [6, 3, 3, 3]
    assert result.report.counts["duplicate positions"] == 2
    result.check()


@pytest.mark.parametrize("second", [PADDED, BARE])
def test_of_equal_filters_one_stays(second: str) -> None:
    given = weights()
    for copy, source in ((2, 0), (5, 0), (7, 3)):
        given["w1"][copy], given["b1"][copy] = given["w1"][source], given["b1"][source]
    result = lossless(convs("z = Tanh(a)", second, **given))
    assert result.size("w1") == [5, 3, 3, 3]
    assert result.report.counts["duplicate positions"] == 3
    result.check()
    assert not lossless(convs("z = Tanh(a)", second, **given), duplicates=False).report.modified


def test_what_only_unread_channels_read_goes_too() -> None:
    w = {"w1": normal(8, 3, 1, 1), "w2": normal(8, 8, 1, 1), "w3": normal(2, 8, 1, 1)}
    w["w3"][:, 5] = 0
    w["w2"][[0, 1, 2, 3, 4, 6, 7], 2] = 0
    result = lossless(
        parse("agraph (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)"
              "{ a = Conv(x, w1)\n b = Tanh(a)\n c = Conv(b, w2)\n d = Tanh(c)\n y = Conv(d, w3) }", **w)
    )  # fmt: skip
    assert (result.size("w1")[0], result.size("w2")) == (7, [7, 7, 1, 1])
    assert result.report.counts["rounds"] == 2
    result.check(exact=True)


def test_a_residual_stream_loses_only_what_every_branch_leaves() -> None:
    text = (
        "agraph (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)"
        "{ a = Conv(x, w1)\n p = Relu(a)\n b = Conv(p, w2)\n q = Relu(b)\n s = Add(p, q)\n y = Conv(s, w3) }"
    )
    w = {"w1": normal(8, 3, 1, 1), "w2": normal(8, 8, 1, 1), "w3": normal(2, 8, 1, 1)}
    w["w1"][[1, 4]] = 0
    w["w2"][[4, 6]] = 0
    result = lossless(parse(text, **w))
    assert result.size("w1") == [7, 3, 1, 1]
    assert result.size("w2") == [7, 7, 1, 1]
    result.check(exact=True)


def test_batch_norm_of_scale_zero_is_its_bias() -> None:
    w = weights() | {"scale": normal(8), "shift": normal(8), "mean": normal(8), "var": np.abs(normal(8)) + 0.5}
    w["scale"][[0, 3]], w["shift"][[0, 3]] = 0, (-1.0, 0.0)
    result = lossless(convs("n = BatchNormalization(a, scale, shift, mean, var)\n z = Relu(n)", PADDED, **w))
    assert result.size("w1") == [6, 3, 3, 3]
    result.check(exact=True)


def test_a_mask_in_the_graph_counts() -> None:
    mask = np.ones((8, 1, 1), np.float32)
    mask[[2, 5]] = 0
    result = lossless(convs("z = Mul(a, mask)", PADDED, **weights(), mask=mask))
    assert result.size("w1") == [6, 3, 3, 3]
    result.check(exact=True)


def test_depthwise_filters_of_dead_or_equal_channels() -> None:
    w = weights(rows={1: -1.0}) | {"d": normal(8, 1, 3, 3)}
    w["w1"][6], w["b1"][6], w["d"][6] = w["w1"][2], w["b1"][2], w["d"][2]
    w["w1"][7], w["b1"][7] = w["w1"][2], w["b1"][2]
    between = "r = Relu(a)\n e = Conv<group = 8, pads = [1, 1, 1, 1]>(r, d)\n z = Relu(e)"
    result = lossless(convs(between, PADDED, **w))
    assert result.size("d") == [6, 1, 3, 3]
    (depthwise,) = [node for node in result.model.graph if node.attributes.get_int("group", 1) > 1]
    assert depthwise.attributes.get_int("group") == 6
    result.check()


def test_channels_that_are_flattened_into_a_dense_layer() -> None:
    w = {"w1": normal(6, 3, 3, 3), "b1": normal(6), "w2": normal(96, 5), "w3": normal(5, 2)}
    w["w1"][[1, 2]], w["b1"][[1, 2]] = 0, (0.5, -1.0)
    w["w1"][4], w["b1"][4] = w["w1"][0], w["b1"][0]
    text = (
        "agraph (float[2, 3, 6, 6] x) => (float[2, 2] y)"
        "{ a = Conv(x, w1, b1)\n r = Relu(a)\n f = Flatten(r)\n g = Gemm<alpha = 0.5>(f, w2)\n t = Tanh(g)\n"
        "y = MatMul(t, w3) }"
    )
    result = lossless(parse(text, **w))
    assert (result.size("w1")[0], result.size("w2")) == (3, [48, 5])
    result.check()


@pytest.mark.parametrize("bias", ["", "bias", "scalar"])
def test_constants_behind_a_matrix_product(bias: str) -> None:
    w = {"w1": normal(4, 8), "b1": normal(8), "w2": normal(8, 3), "bias": normal(3), "scalar": normal()}
    w["w1"][:, [1, 5]] = 0
    after = f"m = MatMul(s, w2)\n y = Add(m, {bias})" if bias else "y = MatMul(s, w2)"
    before = "a = MatMul(x, w1)\n b = Add(a, b1)\n s = Sigmoid(b)"
    text = f"agraph (float[2, 5, 4] x) => (float[2, 5, 3] y) {{ {before}\n {after} }}"
    used = {name: array for name, array in w.items() if name in ("w1", "b1", "w2", bias)}
    result = lossless(parse(text, **used))
    assert result.size("w1") == [4, 6]
    assert sum(node.op_type == "Add" for node in result.model.graph) == (3 if bias == "scalar" else 2)
    assert [value.name for value in result.model.graph.outputs] == ["y"]
    result.check()


def test_statistics_over_an_axis_keep_it() -> None:
    w = {"w1": normal(4, 8), "scale": normal(8), "w2": normal(8, 3)}
    w["w1"][:, 2], w["scale"][2], w["w2"][2] = 0, 0, 0
    text = (
        "agraph (float[2, 4] x) => (float[2, 3] y)"
        "{ a = MatMul(x, w1)\n b = LayerNormalization(a, scale)\n y = MatMul(b, w2) }"
    )
    assert not lossless(parse(text, **w)).report.modified


def test_groups_of_a_convolution() -> None:
    """Two groups of four input and three output channels each: equal inputs of both groups, then equal groups."""
    w = {"w1": normal(8, 3, 1, 1), "w2": normal(6, 4, 3, 3), "w3": normal(2, 6, 1, 1)}
    w["w1"][[1, 5]] = w["w1"][[0, 4]]
    w["w2"][:, 3] = 0
    text = (
        "agraph (float[1, 3, 5, 5] x) => (float[1, 2, 5, 5] y)"
        "{ a = Conv(x, w1)\n b = Tanh(a)\n c = Conv<group = 2, pads = [1, 1, 1, 1]>(b, w2)\n y = Conv(c, w3) }"
    )
    result = lossless(parse(text, **w))
    assert result.size("w2") == [6, 2, 3, 3]
    result.check()
    w["w1"][4:], w["w2"][3:] = w["w1"][:4], w["w2"][:3]
    result = lossless(parse(text, **w))
    assert result.size("w2") == [3, 2, 3, 3]
    result.check()


def test_tied_weights_are_cut_but_not_changed() -> None:
    """The table is both what is looked up and what is multiplied by; equal columns of it stay."""
    table = normal(11, 8)
    table[:, 3] = 0
    table[:, 5] = table[:, 1]
    text = (
        "agraph (int64[2, 4] x) => (float[2, 4, 11] y)"
        "{ e = Gather(table, x)\n t = Transpose<perm = [1, 0]>(table)\n y = MatMul(e, t) }"
    )
    result = lossless(parse(text, table=table))
    assert result.size("table") == [11, 7]
    result.check(exact=True)


def test_one_weight_for_two_layers() -> None:
    w = {"w1": normal(8, 3, 1, 1), "w2": normal(8, 3, 1, 1), "w3": normal(2, 8, 1, 1), "b": normal(2)}
    w["w1"][1] = w["w2"][1] = 0
    w["w1"][5], w["w2"][5] = w["w1"][3], w["w2"][3]
    text = (
        "agraph (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)"
        "{ a = Conv(x, w1)\n b1 = Sigmoid(a)\n c = Conv(x, w2)\n d = Exp(c)\n"
        "p = Conv(b1, w3, b)\n q = Conv(d, w3, b)\n y = Mul(p, q) }"
    )
    result = lossless(parse(text, **w))
    assert result.size("w3") == [2, 6, 1, 1]
    result.check()


def test_recurrent_layers() -> None:
    w = {"w1": normal(3, 6), "w": normal(1, 16, 6), "r": normal(1, 16, 4), "w2": normal(4, 2)}
    w["w"][:, :, 2] = 0
    w["w1"][:, 5] = w["w1"][:, 1]
    w["r"][:, :, 3], w["w2"][3] = 0, 0
    text = (
        "agraph (float[5, 2, 3] x) => (float[2, 2] y)"
        "{ a = MatMul(x, w1)\n s, h = LSTM<hidden_size = 4>(a, w, r)\n z = Squeeze(h, zero)\n y = MatMul(z, w2) }"
    )
    result = lossless(parse(text, **w, zero=np.array([0])))
    assert result.size("w1") == [3, 4]
    assert result.size("r") == [1, 12, 3]
    result.check()


def test_no_tensor_runs_empty() -> None:
    given = weights(rows=dict.fromkeys(range(8), 0.0))
    result = lossless(convs("z = Relu(a)", PADDED, **given))
    assert result.size("w1") == [1, 3, 3, 3]
    for old, new in zip(*result.outputs(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_half_precision_is_cut_but_not_changed() -> None:
    given = {name: array.astype(np.float16) for name, array in weights(rows={1: -1.0, 2: 0.5}).items()}
    given["w1"][6], given["b1"][6] = given["w1"][5], given["b1"][5]
    text = (
        "agraph (float16[2, 3, 6, 6] x) => (float16[2, 2, 4, 4] y)"
        "{ a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)\n z = Relu(a)\n y = Conv(z, w2) }"
    )
    result = lossless(parse(text, **given))
    assert result.size("w1") == [7, 3, 3, 3]
    kept = [0, 2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(result.model.graph.initializers["w2"].const_value.numpy(), given["w2"][:, kept])


def test_quantised_weights_that_are_zero() -> None:
    w = {"w1": normal(8, 3, 1, 1), "q": RNG.integers(1, 9, (2, 8, 1, 1)).astype(np.int8)}
    w["q"][:, [2, 3]] = 0
    text = (
        "agraph (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)"
        "{ a = Conv(x, w1)\n b = Tanh(a)\n w2 = DequantizeLinear<axis = 0>(q, scale)\n y = Conv(b, w2) }"
    )
    result = lossless(parse(text, **w, scale=np.array([0.1, 0.2], np.float32)))
    assert result.size("q") == [2, 6, 1, 1]
    result.check(exact=True)


def test_weights_that_are_too_large_are_not_looked_at() -> None:
    given = weights(rows={1: 0.0})
    result = lossless(convs("z = Relu(a)", PADDED, **given), max_bytes=100)
    assert not result.report.modified
    assert "did not look at 2 weights of more than 100 bytes" in result.report.notes[0]


def test_shuffles_and_splits_carry_facts_along() -> None:
    """A dead channel is followed through ShuffleNetV2's splits, concats and shuffles."""
    planted, _ = plant(shufflenet_v2(tiny=True), "dead", 3, share=0.7, layers=1.0)
    result = lossless(load(planted))
    assert result.report.counts["dead, constant or unread positions"] >= 8
    result.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_loses_what_was_planted(kind: str) -> None:
    planted, _ = plant(resnet18(tiny=True, width=16), kind, 5, layers=1.0)
    result = lossless(load(planted))
    assert result.report.modified
    result.check()


@pytest.mark.parametrize("kind", KINDS)
def test_random_graphs_compute_what_they_did(kind: str) -> None:
    modified = 0
    for seed in range(16):
        planted, _ = plant(random_model(seed), kind, seed)
        model, context = load(planted), Context()
        canonicalize(model)
        if not Lossless()(model, context).modified:
            continue
        modified += 1
        (decision,) = context.decisions
        proof = verify(decision.before, model, decision.structure, decision.selection, runs=1, expect_visible=False)
        assert proof.ok, (seed, proof.reason)
        assert count(model) < count(decision.before)
    assert modified >= 5


def count(model: ir.Model) -> int:
    return sum(parameter.elements for parameter in read(model).counted)


@pytest.mark.parametrize("name", ["light_squeezenet", "light_inception_v1", "light_shufflenet"])
def test_networks_of_equal_weights_collapse(name: str) -> None:
    """All filters of a layer are the same, so one channel of each is enough, except where groups must stay."""
    model, context = load(LIGHT / f"{name}.onnx"), Context()
    canonicalize(model)
    before = count(model)
    assert Lossless()(model, context).modified
    assert count(model) < (0.5 if "shuffle" in name else 0.1) * before
    feeds = random_inputs(ir.to_proto(model))
    for old, new in zip(run(context.decisions[0].before, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(new, old, **ROUNDING)


FREE = {
    "imagenet_mobilenetv2_bnfolded_fp32": 7,
    "imagenet_shufflenetv2_x1.0_fp32": 118,
    "mediapipe_hand_landmark_lite": 525,
    "mobilefacenet": 155,
    "oww_melspectrogram": 137,
    "superres_subpixel_x3": 1,
}
"""Positions that published networks carry for nothing."""


@pytest.mark.corpus
@pytest.mark.parametrize("path", [path for path in corpus() if path.stem in FREE], ids=lambda path: path.stem)
def test_published_networks_get_smaller_for_nothing(path) -> None:  # type: ignore[no-untyped-def]
    model, context = load(path), Context()
    canonicalize(model)
    report = Lossless()(model, context)
    assert sum(number for name, number in report.counts.items() if name != "rounds") >= FREE[path.stem]
    (decision,) = context.decisions
    assert verify(decision.before, model, decision.structure, decision.selection, runs=1, expect_visible=False).ok
