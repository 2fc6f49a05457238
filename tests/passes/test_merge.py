"""What was cut is given to what was kept: exactly where it is a multiple of it, in both hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from graphprune.compensation.merging import Merged
from graphprune.errors import UsageError
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.weight_access import get_weight
from graphprune.passes import Compensate, Context, Decision, Merge, canonicalize, run_passes
from graphprune.passes.prune import cut
from graphprune.selection import Selection


def _onnx(weights: dict[str, np.ndarray], body: str, shape: str = "2,3") -> ir.Model:
    stored = ", ".join(f"float[{','.join(map(str, a.shape))}] {name}" for name, a in weights.items())
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{shape}] x, {stored}) => (float[N,M] y) {{ {body} }}"""
    )
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    read_in = ir.from_proto(model)
    canonicalize(read_in)
    return read_in


def _cut(model: ir.Model, tensor: str, dim: int, kept: list[int]) -> Context:
    structure = read(model)
    (leaf,) = structure.leaves(structure.axis(tensor, dim))
    mask = np.zeros(int(leaf.size), np.bool_)  # type: ignore[arg-type]
    mask[kept] = True
    context = Context()
    assert cut(model, context, structure, Selection(structure.space, {leaf: mask}), "prune")
    return context


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    result: np.ndarray = session.run(None, {"x": x.astype(np.float32)})[0]
    return result


def _error(context: Context, model: ir.Model, x: np.ndarray) -> tuple[float, float]:
    """How far the cut and the merged model are from the dense one."""
    dense = _run(context.decisions[0].before, x)  # type: ignore[arg-type]
    slim = _run(context.decisions[0].after, x)  # type: ignore[arg-type]
    return float(np.abs(slim - dense).max()), float(np.abs(_run(model, x) - dense).max())


RNG = np.random.default_rng(0)


def _twins(*, scale: float, bias: bool = True) -> dict[str, np.ndarray]:
    """A layer of 6 filters of which 4 and 5 are multiples of 0 and 1."""
    w, b = RNG.normal(size=(6, 3)), RNG.normal(size=6) * bias
    w[4:], b[4:] = scale * w[:2], scale * b[:2]
    return {"w": w, "b": b, "v": RNG.normal(size=(5, 6)), "c": RNG.normal(size=5)}


DENSE = "h = Gemm<transB=1>(x, w, b) a = Relu(h) y = Gemm<transB=1>(a, v, c)"


@pytest.mark.parametrize("method", ["lbyl", "nearest"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_multiples_of_kept_filters_merge_exactly_through_a_relu(method: Any, scale: float) -> None:
    model = _onnx(_twins(scale=scale), DENSE)
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge(method).run(model, context)
    without, merged = _error(context, model, RNG.normal(size=(2, 3)))
    assert without > 0.1
    assert merged < 1e-5  # float32
    assert report.modified
    assert report.counts == {"layers": 1, "positions": 2, "parallel": 2}
    assert context.decisions[-1].estimated


def test_a_position_that_others_span_is_written_with_all_of_them() -> None:
    weights = _twins(scale=1.0)
    weights["w"][5] = weights["w"][:3].T @ [0.5, -2.0, 1.0]
    weights["b"][5] = weights["b"][:3] @ [0.5, -2.0, 1.0]
    model = _onnx(weights, "h = Gemm<transB=1>(x, w, b) y = Gemm<transB=1>(h, v, c)")
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    Merge("lbyl", ridge=1e-9).run(model, context)
    without, merged = _error(context, model, RNG.normal(size=(2, 3)))
    assert without > 0.1
    assert merged < 1e-3 * without


def test_through_depthwise_convolutions_pooling_and_a_flattening() -> None:
    w = RNG.normal(size=(6, 2, 3, 3))
    d = RNG.normal(size=(6, 1, 3, 3))
    w[4:], d[4:] = 2 * w[:2], 0.5 * d[:2]
    weights = {"w": w, "d": d, "v": RNG.normal(size=(6 * 4, 5))}
    body = """h = Conv<pads=[1,1,1,1]>(x, w) a = Relu(h) e = Conv<group=6, pads=[1,1,1,1]>(a, d)
        p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(e) f = Flatten(p) y = MatMul(f, v)"""
    model = _onnx(weights, body, "2,2,4,4")
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge().run(model, context)
    without, merged = _error(context, model, RNG.normal(size=(2, 2, 4, 4)))
    assert without > 0.1
    assert merged < 1e-5
    assert report.counts["parallel"] == 2


def test_positions_of_a_sum_must_be_alike_in_all_its_terms() -> None:
    weights = _twins(scale=1.0)
    weights |= {"u": RNG.normal(size=(6, 6))}
    weights["u"][4:] = weights["u"][:2]
    body = "h = Gemm<transB=1>(x, w, b) g = Gemm<transB=1>(h, u) a = Add(h, g) y = Gemm<transB=1>(a, v, c)"
    model = _onnx(weights, body)
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge().run(model, context)
    without, merged = _error(context, model, RNG.normal(size=(2, 3)))
    assert without > 0.1
    assert merged < 1e-5
    assert report.counts == {"layers": 2, "positions": 4, "parallel": 4}


def test_merging_that_leads_away_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _onnx(_twins(scale=1.0), DENSE)
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    x = RNG.normal(size=(2, 3))
    before = _run(model, x)
    wrong = Merged({"v": -10 * get_weight(model, "v")}, layers=1, positions=2)
    monkeypatch.setattr("graphprune.passes.merge.merge", lambda *_: wrong)
    report = Merge().run(model, context)
    assert not report.modified
    assert len(context.decisions) == 1
    assert report.notes[0].startswith("merging was taken back")
    assert np.array_equal(_run(model, x), before)
    assert Merge(guard=False).run(model, context).modified
    assert np.abs(_run(model, x) - before).max() > 0.1


def test_what_mixes_positions_is_left_with_its_reason() -> None:
    weights = _twins(scale=1.0)
    model = _onnx(weights, "h = Gemm<transB=1>(x, w, b) a = Softmax(h) y = Gemm<transB=1>(a, v, c)")
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge().run(model, context)
    assert not report.modified
    assert report.notes == ("1 layer not merged: onnx.Softmax mixes positions",)
    assert len(context.decisions) == 1


def test_it_comes_after_a_cut() -> None:
    model = _onnx(_twins(scale=1.0), DENSE)
    with pytest.raises(UsageError, match="needs 'prune' before it"):
        run_passes(model, [Merge()])
    with pytest.raises(UsageError, match="comes after a cut"):
        Merge().run(model, Context())
    with pytest.raises(UsageError, match="not positive"):
        Merge(ridge=0).run(model, Context())


@pytest.mark.torch
def test_a_module_with_batch_normalisation_and_the_users_weights_stay() -> None:
    torch = pytest.importorskip("torch")
    from torch import nn

    from graphprune.frontends.torch_program import capture

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 2)
    ).eval()
    norm = module[1]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        module[0].weight[4:] = module[0].weight[:2]
        norm.weight[4:], norm.bias[4:] = 3 * norm.weight[:2], 3 * norm.bias[:2]
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(2, 3, 6, 6)
    program = capture(module, (x,))
    structure = program.read()
    (leaf,) = structure.leaves(structure.axis("0.weight", 0))
    mask = np.array([True] * 4 + [False] * 2)
    context = Context()
    assert cut(program, context, structure, Selection(structure.space, {leaf: mask}), "prune")
    report = Merge().run(program, context)
    assert report.counts["parallel"] == 2
    (dense,), (merged,) = program.clone().run((x,), {}), (module(x),)
    (slim,) = context.decisions[0].after.run((x,), {})  # type: ignore[union-attr]
    assert (slim - merged).abs().max() > 0.05
    assert (dense - merged).abs().max() < 1e-5
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert isinstance(context.decisions[1], Decision)


def test_the_better_method_is_kept_and_least_squares_may_follow() -> None:
    weights = _twins(scale=1.0)
    weights["w"][5] = weights["w"][:3].T @ [0.5, -2.0, 1.0]
    weights["b"][5] = weights["b"][:3] @ [0.5, -2.0, 1.0]
    model = _onnx(weights, "h = Gemm<transB=1>(x, w, b) y = Gemm<transB=1>(h, v, c)")
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge().run(model, context)
    assert report.notes[0].startswith("merged by lbyl: relative error of the outputs")
    context.data["calibration"] = [{"x": RNG.normal(size=(2, 3)).astype(np.float32)} for _ in range(20)]
    Compensate().run(model, context)
    without, merged = _error(context, model, RNG.normal(size=(2, 3)))
    assert without > 0.1
    assert merged < 0.05 * without


def test_layers_with_one_weight_merge_together_and_a_weight_that_is_also_a_table_is_left() -> None:
    w, v = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))
    w[4:] = w[:2]
    body = "h = Gemm<transB=1>(x, w) a = Relu(h) z = MatMul(a, v) g = Gemm<transB=1>(z, w) r = Relu(g) y = MatMul(r, v)"
    model = _onnx({"w": w, "v": v}, body)
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    report = Merge().run(model, context)
    assert report.counts == {"layers": 2, "positions": 2, "parallel": 2}
    without, merged = _error(context, model, RNG.normal(size=(2, 3)))
    assert without > 0.1
    assert merged < 1e-4

    model = _onnx(
        {"w": w, "v": v},
        "h = Gemm<transB=1>(x, w) a = Relu(h) z = MatMul(a, v) "
        "k = ReduceMean(x) q = Mul(v, k) n = ReduceSum(q) y = Add(z, n)",
    )
    context = _cut(model, "w", 0, [0, 1, 2, 3])
    assert Merge().run(model, context).notes == ("1 layer not merged: a weight that other operators read too",)
