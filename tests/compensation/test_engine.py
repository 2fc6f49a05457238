"""Layer by layer towards the dense program: what can be restored is, on both hosts, and nothing gets worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import parse

from graphprune.calibration import Calibration
from graphprune.compensation import Options, compensate
from graphprune.compensation.pairs import pairs
from graphprune.errors import UsageError
from graphprune.frontends.program import program_of
from graphprune.frontends.weight_access import get_weight
from graphprune.passes import Compensate, Context, canonicalize, run_passes
from graphprune.passes.prune import cut
from graphprune.selection import Selection

HOSTS = ["onnx", pytest.param("torch", marks=pytest.mark.torch)]
OPTIONS = Options(rows=4096)


def _onnx(text: str, **weights: Any) -> ir.Model:
    model = parse(text, **{name: np.asarray(value, np.float32) for name, value in weights.items()})
    canonicalize(model)
    return model


def _torch(module: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    torch = pytest.importorskip("torch")
    from graphprune.frontends.torch_program import capture

    with torch.no_grad():
        state = module.state_dict()
        for name, value in weights.items():
            state[name].copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return capture(module.eval(), (torch.from_numpy(x),))


def _slim(dense: Any, tensor: str, dim: int, gone: list[int]) -> tuple[Any, Any, Selection]:
    """A copy of ``dense`` without some positions, and how it was cut."""
    structure = program_of(dense).read()
    (leaf,) = structure.leaves(structure.axis(tensor, dim))
    mask = np.ones(int(leaf.size), np.bool_)
    mask[gone] = False
    selection = Selection(structure.space, {leaf: mask})
    slim = program_of(dense).clone()
    assert program_of(slim).write(structure, selection)
    return slim, structure, selection


def _distance(dense: Any, slim: Any, feeds: list[Any]) -> float:
    pairs = zip(Calibration(dense, feeds).outputs(), Calibration(slim, feeds).outputs(), strict=True)
    gaps = [(np.square(a[0] - b[0]).sum(), np.square(a[0] - a[0].mean(0)).sum()) for a, b in pairs]
    return float(sum(gap for gap, _ in gaps) / sum(size for _, size in gaps))


def _feeds(host: str, *shape: int, count: int = 6, seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    batches = [(generator.standard_normal(shape) + 0.3).astype(np.float32) for _ in range(count)]
    return [{"x": batch} if host == "onnx" else (batch,) for batch in batches]


def _redundant(generator: Any) -> tuple[Any, Any, Any, Any]:
    """Two layers, of whose five hidden units the fourth is half the sum of the first two, the last a constant."""
    first, second = generator.standard_normal((6, 5)), generator.standard_normal((5, 3))
    bias = generator.standard_normal(5)
    first[:, 3], bias[3] = (first[:, 0] + first[:, 1]) / 2, 0.25
    first[:, 4], bias[4] = 0, 2
    return first, bias, second, generator.standard_normal(3)


@pytest.mark.parametrize("host", HOSTS)
def test_what_others_can_say_is_restored(host: str) -> None:
    """Units that follow from the rest, and constant ones, go without a trace."""
    first, bias, second, end = _redundant(np.random.default_rng(1))
    feeds = _feeds(host, 64, 6)
    if host == "onnx":
        text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) y = Gemm(h, c, d) }"
        dense, weight = _onnx(text, a=first, b=bias, c=second, d=end), ("a", 1)
    else:
        torch = pytest.importorskip("torch")
        module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
        values = {"0.weight": first.T, "0.bias": bias, "1.weight": second.T, "1.bias": end}
        dense, weight = _torch(module, feeds[0][0], values), ("0.weight", 0)
    slim, structure, selection = _slim(dense, *weight, [3, 4])
    assert _distance(dense, slim, feeds) > 0.01
    outcome = compensate(dense, structure, selection, slim, feeds, OPTIONS)
    assert (outcome.changed, outcome.whole, outcome.refused) == (1, 1, 0)
    assert _distance(dense, slim, _feeds(host, 64, 6, seed=9)) < 1e-6


@pytest.mark.torch
def test_both_hosts_do_the_same() -> None:
    """A convolutional network cut and compensated as ONNX and as a module gives the same numbers."""
    pytest.importorskip("torch")
    from torch import nn

    generator = np.random.default_rng(3)
    w, b = generator.standard_normal((8, 3, 3, 3)), generator.standard_normal(8)
    v, c = generator.standard_normal((4, 8, 3, 3)), generator.standard_normal(4)
    text = """g (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
        h = Conv<pads=[1, 1, 1, 1]>(x, w, b) r = Relu(h) y = Conv<pads=[1, 1, 1, 1]>(r, v, c) }"""
    model = _onnx(text, w=w, b=b, v=v, c=c)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    feeds = _feeds("torch", 4, 3, 6, 6)
    program = _torch(module, feeds[0][0], {"0.weight": w, "0.bias": b, "2.weight": v, "2.bias": c})
    outputs = []
    for host, weight, own in (
        (model, ("w", 0), [{"x": feed[0]} for feed in feeds]),
        (program, ("0.weight", 0), feeds),
    ):
        slim, structure, selection = _slim(host, *weight, [0, 2, 5])
        without = _distance(host, slim, own)
        compensate(host, structure, selection, slim, own, OPTIONS)
        assert _distance(host, slim, own) < 0.7 * without
        outputs.append(next(iter(Calibration(slim, own).outputs()))[0])
    assert np.allclose(*outputs, rtol=1e-3, atol=1e-3)


def test_a_stream_is_restored_by_what_is_added_to_it() -> None:
    """The second block takes back what the first one lost, which its own result would not say."""
    generator = np.random.default_rng(5)
    weights = {name: generator.standard_normal((6, 6)) for name in "abcd"}
    biases = {name: generator.standard_normal(6) for name in "pqrs"}
    text = """g (float[n, 6] x) => (float[n, 6] y) {
        h = Gemm(x, a, p) i = Relu(h) j = Gemm(i, b, q) s = Add(x, j)
        k = Gemm(s, c, r) l = Relu(k) m = Gemm(l, d, t) y = Add(s, m) }"""
    dense = _onnx(text, **weights, p=biases["p"], q=biases["q"], r=biases["r"], t=biases["s"])
    feeds = _feeds("onnx", 128, 6)
    found = []
    for residual in (False, True):
        slim, structure, selection = _slim(dense, "a", 1, [0, 1, 2])
        compensate(dense, structure, selection, slim, feeds, Options(rows=4096, residual=residual))
        found.append(_distance(dense, slim, _feeds("onnx", 128, 6, seed=9)))
    assert found[1] < found[0]


@pytest.mark.torch
def test_a_batch_normalisation_takes_the_constant() -> None:
    """A convolution without a bias: the mean of the BatchNorm behind it moves instead, and nothing new is stored."""
    pytest.importorskip("torch")
    from torch import nn

    generator = np.random.default_rng(7)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten()
    )
    constant = np.zeros((6, 3, 1, 1))
    constant[:5] = generator.standard_normal((5, 3, 1, 1))
    values = {
        "0.weight": constant,
        "0.bias": np.array([0, 0, 0, 0, 0, 3.0]),
        "3.running_mean": generator.standard_normal(4),
        "3.running_var": 1 + generator.random(4),
        "3.weight": generator.standard_normal(4),
    }
    feeds = _feeds("torch", 8, 3, 4, 4)
    dense = _torch(module, feeds[0][0], values)
    slim, structure, selection = _slim(dense, "0.weight", 0, [5])
    names = set(dict(slim.module.named_parameters()))
    compensate(dense, structure, selection, slim, feeds, OPTIONS)
    assert set(dict(slim.module.named_parameters())) == names
    assert _distance(dense, slim, feeds) < 1e-6
    assert not np.allclose(get_weight(slim, "3.running_mean"), values["3.running_mean"])


def test_a_shared_weight_is_chosen_for_all_its_uses() -> None:
    """Two calls of one matrix share it afterwards too, and both get nearer."""
    generator = np.random.default_rng(11)
    text = """g (float[n, 4] x) => (float[n, 3] y, float[n, 3] z) {
        h = Gemm(x, a, p) i = Gemm(x, b, q) r = Relu(h) s = Tanh(i) t = Add(r, s)
        y = MatMul(r, w) z = MatMul(t, w) }"""
    values = {name: generator.standard_normal((4, 6)) for name in "ab"} | {"w": generator.standard_normal((6, 3))}
    dense = _onnx(text, **values, p=np.ones(6), q=np.ones(6))
    feeds = _feeds("onnx", 128, 4)
    slim, structure, selection = _slim(dense, "w", 0, [1, 4])
    without = _distance(dense, slim, feeds)
    outcome = compensate(dense, structure, selection, slim, feeds, OPTIONS)
    assert outcome.changed == 1
    assert get_weight(slim, "w").shape == (4, 3)
    assert _distance(dense, slim, _feeds("onnx", 128, 4, seed=9)) < without


def test_what_does_not_help_elsewhere_is_refused() -> None:
    """Held-out batches in which the twin of what went is no twin: a fit would make them worse, so the weights stay."""
    generator = np.random.default_rng(13)
    text = "g (float[n, 2] x) => (float[n, 3] y) { h = MatMul(x, a) r = Relu(h) y = Gemm(r, c, d) }"
    dense = _onnx(text, a=np.eye(2), c=generator.standard_normal((2, 3)), d=np.zeros(3))
    slim, structure, selection = _slim(dense, "a", 1, [0])
    u = generator.random((64, 1)) + 1
    feeds = [{"x": np.concatenate(pair, 1).astype(np.float32)} for pair in ((u, u), (0.01 * u, 5 * u))]
    before = get_weight(slim, "c")
    outcome = compensate(dense, structure, selection, slim, feeds, Options(rows=64, holdout=0.5))
    assert (outcome.changed, outcome.refused) == (0, 1)
    assert np.array_equal(get_weight(slim, "c"), before)


def test_nothing_cut_nothing_changed() -> None:
    """The origin control: by this recovery the dense program stays as it is."""
    first, bias, second, end = _redundant(np.random.default_rng(17))
    text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) y = Gemm(h, c, d) }"
    dense = _onnx(text, a=first, b=bias, c=second, d=end)
    copy = dense.clone()
    structure = program_of(dense).read()
    outcome = compensate(dense, structure, Selection(structure.space, {}), copy, _feeds("onnx", 32, 6), OPTIONS)
    assert (outcome.changed, outcome.refused) == (0, 0)
    assert all(np.array_equal(get_weight(copy, name), get_weight(dense, name)) for name in "abcd")


def test_the_pass_says_what_it_needs() -> None:
    """Calibration inputs, and a cut before it."""
    first, bias, second, end = _redundant(np.random.default_rng(19))
    text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) y = Gemm(h, c, d) }"
    dense = _onnx(text, a=first, b=bias, c=second, d=end)
    with pytest.raises(UsageError, match="--calib"):
        run_passes(dense, [Compensate()], Context())
    with pytest.raises(UsageError, match="after a cut"):
        run_passes(dense, [Compensate()], Context(data={"calibration": _feeds("onnx", 32, 6)}))
    context = Context(data={"calibration": _feeds("onnx", 32, 6)})
    structure = program_of(dense).read()
    (leaf,) = structure.leaves(structure.axis("a", 1))
    kept = np.array([True, True, True, False, True])
    cut(dense, context, structure, Selection(structure.space, {leaf: kept}), "prune")
    run_passes(dense, [Compensate()], context)
    assert [decision.estimated for decision in context.decisions] == [False, True]
    assert "1 layer compensated by least-squares, 0 left as cut" in context.reports[-1][1].notes[0]


def test_the_outputs_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers may all get nearer to their targets: what moves the outputs away is taken back, weights bit by bit."""
    from graphprune.compensation import engine

    first, bias, second, end = _redundant(np.random.default_rng(23))
    text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) t = Tanh(h) y = Gemm(t, c, d) }"
    dense = _onnx(text, a=first, b=bias, c=second, d=end)
    slim, structure, selection = _slim(dense, "a", 1, [0, 1])
    before = {name: get_weight(slim, name) for name in "abcd"}
    distances = iter([1.0, 2.0])
    monkeypatch.setattr(engine.Judge, "distance", lambda self, host: next(distances))
    outcome = compensate(dense, structure, selection, slim, _feeds("onnx", 64, 6), OPTIONS)
    assert (outcome.changed, outcome.refused) == (0, 1)
    assert all(np.array_equal(get_weight(slim, name), value) for name, value in before.items())


def test_a_fit_that_is_no_number_is_refused() -> None:
    """Inputs that overflow single precision leave the weights as they are."""
    first, bias, second, end = _redundant(np.random.default_rng(29))
    text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) r = Relu(h) y = Gemm(r, c, d) }"
    dense = _onnx(text, a=first, b=bias, c=second, d=end)
    slim, structure, selection = _slim(dense, "a", 1, [0])
    feeds = [{"x": (1e30 * feed["x"]).astype(np.float32)} for feed in _feeds("onnx", 64, 6)]
    with np.errstate(all="ignore"):
        outcome = compensate(dense, structure, selection, slim, feeds, OPTIONS)
    assert outcome.changed == 0
    assert np.isfinite(get_weight(slim, "c")).all()


def test_many_features_leave_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a bound only the constant is chosen anew."""
    from graphprune.compensation import engine

    monkeypatch.setattr(engine, "MOST_FEATURES", 2)
    first, bias, second, end = _redundant(np.random.default_rng(31))
    text = "g (float[n, 6] x) => (float[n, 3] y) { h = Gemm(x, a, b) y = Gemm(h, c, d) }"
    dense = _onnx(text, a=first, b=bias, c=second, d=end)
    slim, structure, selection = _slim(dense, "a", 1, [4])
    before = get_weight(slim, "c")
    compensate(dense, structure, selection, slim, _feeds("onnx", 64, 6), OPTIONS)
    assert np.array_equal(get_weight(slim, "c"), before)
    assert _distance(dense, slim, _feeds("onnx", 64, 6, seed=9)) < 1e-6  # what went was a constant


def test_a_program_without_layers_says_so() -> None:
    """Quantised weights are no layers: that nothing was done has a reason in the report."""
    generator = np.random.default_rng(37)
    dense = parse(
        """g (float[n, 4] x) => (float[n, 3] y) {
            a = DequantizeLinear(q, s) h = MatMul(x, a) r = Relu(h) b = DequantizeLinear(p, s) y = MatMul(r, b) }""",
        q=generator.integers(-90, 90, (4, 6)).astype(np.int8),
        p=generator.integers(-90, 90, (6, 3)).astype(np.int8),
        s=np.float32(0.02),
    )
    canonicalize(dense)
    context = Context(data={"calibration": _feeds("onnx", 32, 4)})
    structure = program_of(dense).read()
    (leaf,) = structure.leaves(structure.axis("q", 1))
    kept = np.array([True, True, True, False, True, True])
    cut(dense, context, structure, Selection(structure.space, {leaf: kept}), "prune")
    report = Compensate().run(dense, context)
    assert not report.modified
    assert any("no layer can be compensated" in note for note in report.notes)


def test_a_result_of_the_program_counts_as_a_reader() -> None:
    """What a ReLU hides shows where the number in front of it is given away as well: it is fitted too."""
    first, bias, second, end = _redundant(np.random.default_rng(41))
    text = """g (float[n, 6] x) => (float[n, 3] y, float[n, 3] z) {
        h = Gemm(x, a, b) t = Tanh(h) y = Gemm(t, c, d) z = Relu(y) }"""
    dense = _onnx(text, a=first, b=bias, c=second, d=end - 3)
    structure = program_of(dense).read()
    ((first_pair,), (last_pair,)) = pairs(structure, structure, dense, frozenset(n.name or "" for n in dense.graph))
    assert (first_pair.plain_bounds, last_pair.plain_bounds) == (None, None)


def test_a_bias_that_others_read_stays() -> None:
    """One bias for two matrices: a constant for one of them would be wrong for the other."""
    generator = np.random.default_rng(43)
    text = """g (float[n, 6] x) => (float[n, 3] y, float[n, 3] z) {
        h = MatMul(x, a) t = Relu(h) i = MatMul(t, c) y = Add(i, d) j = MatMul(t, e) k = Add(j, d) z = Tanh(k) }"""
    model = parse(
        text,
        a=generator.standard_normal((6, 5)).astype(np.float32),
        c=generator.standard_normal((5, 3)).astype(np.float32),
        e=generator.standard_normal((5, 3)).astype(np.float32),
        d=generator.standard_normal((1, 3)).astype(np.float32),
    )
    structure = program_of(model).read()
    found = pairs(structure, structure, model, frozenset(node.name or "" for node in model.graph))
    biases = {pair.slim.weight: (pair.slim.bias, pair.bias) for (pair,) in found}
    assert biases == {"a": (None, None), "c": ("d", None), "e": ("d", None)}
