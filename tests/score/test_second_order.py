"""The cost of a position is what least squares leaves without it: against direct solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from told_programs import HOSTS, attention, evidence_of, onnx_program, perceptron, scores

from graphprune.score import SecondOrder, second_order

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the covariance as it is: here there are rows enough, and direct solutions draw it to nothing."""
    monkeypatch.setattr(second_order, "ROWS_EACH", 1e-9)
    monkeypatch.setattr(second_order, "RIDGE", 1e-7)


def _scored(evidence: Any, size: int) -> Any:
    found = scores(SecondOrder(rows=1 << 16), evidence)
    return next(values for leaf, values in found.items() if leaf.size == size)


def _left(x: Any, weight: Any, gone: list[int]) -> float:
    """The share of the variance of ``x @ weight`` that is lost without the columns ``gone``, the rest chosen anew."""
    kept = [column for column in range(x.shape[1]) if column not in gone]
    y = x @ weight
    y = y - y.mean(0)
    wide = x[:, kept] - x[:, kept].mean(0)
    return float(np.square(y - wide @ np.linalg.lstsq(wide, y, rcond=None)[0]).sum() / np.square(y).sum())


@pytest.mark.parametrize("host", HOSTS)
def test_the_first_to_go_costs_what_least_squares_leaves(host: str) -> None:
    """Of all positions it is the one without which least is left; its score is that."""
    first, second = RNG.standard_normal((5, 7)).astype(np.float32), RNG.standard_normal((7, 3)).astype(np.float32)
    batches = [RNG.standard_normal((800, 5)).astype(np.float32) for _ in range(8)]
    found = _scored(perceptron(host, first, second, batches), 7)
    hidden = np.maximum(np.concatenate(batches) @ first, 0).astype(np.float64)
    alone = [_left(hidden, second, [unit]) for unit in range(7)]
    least = int(np.argmin(found))
    assert least == int(np.argmin(alone))
    assert found[least] == pytest.approx(alone[least], rel=0.1)


@pytest.mark.parametrize("host", HOSTS)
def test_of_two_copies_one_is_free(host: str) -> None:
    """The second is dear once the first is gone: scores are those of the round in which a position goes."""
    first, second = RNG.standard_normal((5, 6)).astype(np.float32), RNG.standard_normal((6, 3)).astype(np.float32)
    first[:, 4] = first[:, 1]
    batches = [RNG.standard_normal((400, 5)).astype(np.float32) for _ in range(8)]
    found = _scored(perceptron(host, first, second, batches), 6)
    order = np.argsort(found)
    assert order[0] in (1, 4)
    assert found[order[0]] < 0.02 * found[order[1]]


def test_the_order_of_removal_is_greedy() -> None:
    """Each next position is the one without which, after those before it, least is left."""
    first, second = RNG.standard_normal((4, 6)).astype(np.float32), RNG.standard_normal((6, 2)).astype(np.float32)
    batches = [RNG.standard_normal((2000, 4)).astype(np.float32) for _ in range(8)]
    found = _scored(perceptron("onnx", first, second, batches), 6)
    hidden = np.maximum(np.concatenate(batches) @ first, 0).astype(np.float64)
    gone: list[int] = []
    for unit in np.argsort(found)[:4].tolist():
        left = {other: _left(hidden, second, [*gone, other]) for other in range(6) if other not in gone}
        assert left[unit] <= 1.1 * min(left.values())
        gone.append(unit)


def test_constant_channels_of_a_convolution_are_free() -> None:
    """What a bias can say costs nothing, also where a position has several features."""
    kernel = RNG.standard_normal((4, 2, 1, 1)).astype(np.float32)
    kernel[2] = 0
    model = onnx_program(
        "g (float[n, 2, 5, 5] x) => (float[n, 3, 4, 4] y) { h = Conv(x, w) r = Sigmoid(h) y = Conv(r, v) }",
        w=kernel,
        v=RNG.standard_normal((3, 4, 2, 2)).astype(np.float32),
    )
    batches = [RNG.standard_normal((4, 2, 5, 5)).astype(np.float32) for _ in range(6)]
    found = _scored(evidence_of(model, batches), 4)
    assert int(np.argmin(found)) == 2
    assert found[2] < 1e-3 * np.sort(found)[1]


def test_depthwise_layers_have_no_say() -> None:
    """They read nothing but the channel itself; what reads their result decides."""
    model = onnx_program(
        """g (float[n, 2, 6, 6] x) => (float[n, 3, 6, 6] y) {
            h = Conv(x, w) d = Conv<group=4, pads=[1, 1, 1, 1]>(h, k) y = Conv(d, v) }""",
        w=RNG.standard_normal((4, 2, 1, 1)).astype(np.float32),
        k=RNG.standard_normal((4, 1, 3, 3)).astype(np.float32),
        v=(np.array([1, 0.001, 1, 1]) * RNG.standard_normal((3, 4)))[..., None, None].astype(np.float32),
    )
    evidence = evidence_of(model, [RNG.standard_normal((4, 2, 6, 6)).astype(np.float32) for _ in range(6)])
    assert int(np.argmin(_scored(evidence, 4))) == 1


@pytest.mark.parametrize("host", HOSTS)
def test_what_no_layer_reads_is_not_free(host: str) -> None:
    """Widths of queries and keys meet in a product of two activations: they are judged by their energy, not by zero."""
    weights = {name: RNG.standard_normal((8, 8)).astype(np.float32) for name in "qkvo"}
    evidence = attention(host, weights, 2, [RNG.standard_normal((2, 5, 8)).astype(np.float32) for _ in range(3)])
    found = scores(SecondOrder(), evidence)
    assert len(found) > 2
    assert all((values > 0).all() for values in found.values())


def test_quantised_readers_do_not_make_a_position_free() -> None:
    """A matrix that is no layer reads the hidden units: the one that is never active goes first, not all alike."""
    first = RNG.standard_normal((4, 6)).astype(np.float32)
    first[:, 2] = 0
    model = onnx_program(
        """g (float[n, 4] x) => (float[n, 3] y) {
            h = MatMul(x, a) r = Relu(h) b = DequantizeLinear(q, s) y = MatMul(r, b) }""",
        a=first,
        q=RNG.integers(-90, 90, (6, 3)).astype(np.int8),
        s=np.float32(0.1),
    )
    found = _scored(evidence_of(model, [RNG.standard_normal((50, 4)).astype(np.float32) for _ in range(4)]), 6)
    assert int(np.argmin(found)) == 2
    assert (np.delete(found, 2) > 0).all()
