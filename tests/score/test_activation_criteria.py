"""Criteria on calibration inputs against what numpy computes from the definition, on both hosts."""

from __future__ import annotations

import numpy as np
import pytest
from told_programs import HOSTS, Array, attention, convolutions, flattened, onnx_program, perceptron, scores

from graphprune.calibration import Calibration
from graphprune.errors import UsageError
from graphprune.frontends.program import program_of
from graphprune.score import (
    Apoz,
    Chip,
    Criterion,
    Entropy,
    Evidence,
    Fidelity,
    Flap,
    HRank,
    L2Activation,
    Magnitude,
    MeanActivation,
    Scores,
    ThiNet,
    Wanda,
    criteria,
)
from graphprune.score.chip import independence
from graphprune.score.moments import Moments
from graphprune.score.readings import Readings

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RNG = np.random.default_rng(0)
FIRST = np.array([[1, 0, 1, -1], [0, 1, 1, 1]], np.float32)
SECOND = np.array([[1, 0], [2, 0], [0, 3], [1, 1]], np.float32)
BATCHES = [np.array([[1, -1], [2, 0]], np.float32), np.array([[-1, 1]], np.float32)]
HIDDEN = np.array([[1, 0, 0, 0], [2, 0, 2, 0], [0, 1, 0, 2]], np.float64)
"""What ``relu(x @ FIRST)`` is on all batches: worked out by hand."""

TOLERANCE = 1e-5  # activations are float32


START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    RNG.bit_generator.state = START


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def divergence(whole: np.ndarray, less: np.ndarray) -> float:
    """KL in nats, the mean over rows of logits."""
    p, q = (y - np.log(np.exp(y).sum(1, keepdims=True)) for y in (whole, less))
    return float((np.exp(p) * (p - q)).sum(1).mean())


def only(found: Scores) -> np.ndarray:
    (values,) = found.values()
    return values


def by_role(evidence: Evidence, found: Scores, role: str) -> np.ndarray:
    (group,) = [group for group in evidence.structure.groups if group.role == role and len(group.slices) == 4]
    return found[group.leaf]


NORMS = np.array([1, 2, 3, np.sqrt(2)])
SQUARES = (HIDDEN**2).mean(0)
BY_HAND: list[tuple[Criterion, np.ndarray]] = [
    (Apoz(), np.array([2, 1, 1, 1]) / 3),
    (MeanActivation(), np.array([3, 1, 2, 2]) / 3),
    (L2Activation(), np.sqrt(np.array([5, 1, 4, 4]) / 3)),
    (Wanda(), np.sqrt(SQUARES) * NORMS / np.sqrt((SQUARES * NORMS**2).sum())),
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("criterion", "expected"), BY_HAND, ids=[criterion.name for criterion, _ in BY_HAND])
def test_by_hand(host: str, criterion: Criterion, expected: np.ndarray) -> None:
    found = only(scores(criterion, perceptron(host, FIRST, SECOND, BATCHES)))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("host", HOSTS)
def test_fluctuation_is_standardised_by_group(host: str) -> None:
    raw = HIDDEN.var(0) * NORMS**2
    found = only(scores(Flap(), perceptron(host, FIRST, SECOND, BATCHES)))
    np.testing.assert_allclose(found, (raw - raw.mean()) / raw.std(), rtol=TOLERANCE)


def test_variance_is_not_lost_beside_a_large_mean() -> None:
    """A shift of 1000 deviations, in batches: what float32 still holds of the variance is found."""
    x = (1000 + normal(64, 1)).astype(np.float32)
    first, second = np.ones((1, 2), np.float32), np.eye(2, dtype=np.float32)
    first[0, 1] = 2
    evidence = perceptron("onnx", first, second, np.split(x, 4))
    ((_, moments),) = Moments.of(Readings(evidence))
    np.testing.assert_allclose(moments.variance, np.array([1, 4]) * x.astype(np.float64).var(), rtol=1e-4)


@pytest.mark.parametrize("host", HOSTS)
def test_entropy_of_binned_means(host: str) -> None:
    """Three samples in three bins, or two of them in one: log 3, or that of thirds."""
    found = only(scores(Entropy(bins=2), perceptron(host, FIRST, SECOND, BATCHES)))
    two_and_one = -(2 / 3) * np.log(2 / 3) - (1 / 3) * np.log(1 / 3)
    np.testing.assert_allclose(found, [two_and_one] * 4, rtol=TOLERANCE)
    found = only(scores(Entropy(bins=3), perceptron(host, FIRST, SECOND, BATCHES)))
    np.testing.assert_allclose(found, [np.log(3), two_and_one, two_and_one, two_and_one], rtol=TOLERANCE)


@pytest.mark.parametrize("host", HOSTS)
def test_rank_of_maps(host: str) -> None:
    """Channels are multiples of input maps of rank 1 and 2, and of none; the map behind the depthwise layer counts."""
    x = np.zeros((2, 2, 4, 4), np.float32)
    x[:, 0] = np.outer([1, 2, 3, 4], [1, 1, 2, 2])
    x[0, 1], x[1, 1] = np.diag([1, 1, 0, 0]), np.eye(4)
    first = np.array([[1, 0], [0, 1], [0, 0]], np.float32)[..., None, None]
    depthwise = np.zeros((3, 1, 3, 3), np.float32)
    depthwise[:, 0, 1, 1] = [2, 3, 4]
    evidence = convolutions(host, first, normal(2, 3, 1, 1), [x], depthwise)
    np.testing.assert_allclose(only(scores(HRank(), evidence)), [1, 3, 0])


@pytest.mark.parametrize("host", HOSTS)
def test_independence_of_maps(host: str) -> None:
    """Against the nuclear norms themselves; two channels are parallel, so neither is independent of the other."""
    x = normal(3, 5, 2, 3)
    first = normal(4, 5, 1, 1)
    first[1] = 2 * first[0]
    depthwise = np.zeros((4, 1, 3, 3), np.float32)
    depthwise[:, 0, 1, 1] = 1
    evidence = convolutions(host, first, normal(2, 4, 1, 1), np.split(x, 3), depthwise)
    maps = np.einsum("oi,nihw->nohw", first[..., 0, 0], x).reshape(3, 4, 6).astype(np.float64)
    expected = np.zeros(4)
    for sample in maps:
        for row in range(4):
            without = sample.copy()
            without[row] = 0
            expected[row] += np.linalg.norm(sample, "nuc") - np.linalg.norm(without, "nuc")
    found = only(scores(Chip(), evidence))
    np.testing.assert_allclose(found, expected / 3, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (1, 4), (4, 1)])
def test_nuclear_norms_without_each_row(shape: tuple[int, int]) -> None:
    matrix = RNG.standard_normal(shape) * 10.0 ** RNG.integers(-3, 4, (shape[0], 1))
    expected = [np.linalg.norm(matrix, "nuc") - np.linalg.norm(np.delete(matrix, k, 0), "nuc") for k in range(shape[0])]
    # roots of eigenvalues in float64
    np.testing.assert_allclose(independence(matrix), expected, atol=1e-7 * np.linalg.norm(matrix, 2), rtol=0)
    assert not independence(np.zeros(shape)).any()


@pytest.mark.parametrize("host", HOSTS)
def test_greedy_removal(host: str) -> None:
    """Contributions to both outputs: the order by trying all, and costs relative to all energy."""
    contributions = (HIDDEN[:, :, None] * SECOND).transpose(0, 2, 1).reshape(-1, 4)
    removed: list[int] = []
    costs = np.zeros(4)
    while len(removed) < 4:
        trials = {k: (contributions[:, [*removed, k]].sum(1) ** 2).sum() for k in range(4) if k not in removed}
        best = min(trials, key=lambda k: trials[k])
        removed.append(best)
        costs[best] = trials[best]
    expected = costs / (contributions.sum(1) ** 2).sum()
    assert (np.diff(expected[removed]) > 0).all()
    found = only(scores(ThiNet(), perceptron(host, FIRST, SECOND, BATCHES)))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_greedy_removal_of_sampled_results_is_near_that_of_all() -> None:
    first, second, x = normal(6, 12), normal(12, 40), normal(400, 6)
    second *= np.geomspace(0.05, 1, 12, dtype=np.float32)[:, None]
    evidence = perceptron("onnx", first, second, np.split(x, 4))
    few, all_ = only(scores(ThiNet(rows=600), evidence)), only(scores(ThiNet(rows=1 << 20), evidence))
    assert not np.allclose(few, all_)
    # a square's own square is 6 (behind ReLU) times 3 (random signs) of its mean's: a deviation of sqrt(17 / 600)
    np.testing.assert_allclose(np.sort(few)[:10], np.sort(all_)[:10], rtol=3 * np.sqrt(17 / 600))
    np.testing.assert_array_equal(few, only(scores(ThiNet(rows=600), evidence)))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("measure", ["kl", "cosine"])
def test_outputs_without_each_position(host: str, measure: str) -> None:
    whole = HIDDEN @ SECOND
    expected = np.zeros(4)
    for k in range(4):
        less = np.delete(HIDDEN, k, 1) @ np.delete(SECOND, k, 0)
        # nothing says how many samples there are, so the cosine is that of all
        cosine = (whole * less).sum() / np.linalg.norm(whole) / np.linalg.norm(less)
        expected[k] = divergence(whole, less) if measure == "kl" else 1 - cosine
    found = only(scores(Fidelity(measure), perceptron(host, FIRST, SECOND, BATCHES)))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_few_forwards_share_what_several_positions_change() -> None:
    first, second, x = normal(5, 20), normal(20, 4), normal(8, 5)
    evidence = perceptron("onnx", first, second, [x])
    asked: list[str] = []
    evidence.calibration._progress = asked.append
    found = only(scores(Fidelity(forwards=5), evidence))
    assert asked[-1] == "fidelity: position 5 of 5"
    magnitudes = np.sqrt(((first**2).sum(0) + (second**2).sum(1)) / 2)
    least = np.argsort(magnitudes)[:4]
    hidden = np.maximum(x @ first, 0).astype(np.float64)
    change = divergence(hidden @ second, np.delete(hidden, least, 1) @ np.delete(second, least, 0))
    np.testing.assert_allclose(found[least], change * magnitudes[least] / magnitudes[least].sum(), rtol=1e-3)


@pytest.mark.parametrize("host", HOSTS)
def test_members_of_a_channel_behind_a_flatten(host: str) -> None:
    """The 6 numbers that a flatten makes of a channel's map are the channel."""
    x, first, second = normal(4, 3, 2, 3), normal(5, 3, 1, 1), normal(30, 2)
    first[1] = 0
    evidence = flattened(host, first, second, np.split(x, 2))
    maps = np.maximum(np.einsum("oi,nihw->nohw", first[..., 0, 0], x), 0).reshape(4, 5, 6).astype(np.float64)
    weights = second.reshape(5, 6, 2).astype(np.float64)
    np.testing.assert_allclose(only(scores(Apoz(), evidence)), (maps > 0).mean((0, 2)), rtol=TOLERANCE)
    norms = np.sqrt((maps**2).mean(0).sum(1))
    np.testing.assert_allclose(only(scores(L2Activation(), evidence)), norms, rtol=TOLERANCE)
    costs = np.sqrt((maps**2).mean(0) * (weights**2).sum(2))
    expected = (costs / np.sqrt((costs**2).sum())).sum(1)
    np.testing.assert_allclose(only(scores(Wanda(), evidence)), expected, rtol=TOLERANCE)
    ranks = [np.linalg.matrix_rank(maps[half, k]) for k in range(5) for half in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(only(scores(HRank(), evidence)), np.reshape(ranks, (5, 2)).mean(1))


@pytest.mark.parametrize("host", HOSTS)
def test_heads_by_what_enters_the_output_projection(host: str) -> None:
    x = normal(3, 5, 8)
    weights = {name: normal(8, 12) for name in "qkv"} | {"o": normal(12, 8)}
    weights["v"][:, 6:8] = weights["v"][:, 4:6]  # the second head gives a matrix of rank 2
    evidence = attention(host, weights, 3, [x])
    q, k, v = ((x @ weights[name]).reshape(3, 5, 3, 4).transpose(0, 2, 1, 3).astype(np.float64) for name in "qkv")
    logits = q @ k.transpose(0, 1, 3, 2)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (p / p.sum(-1, keepdims=True)) @ v  # (samples, heads, tokens, width)
    heads = by_role(evidence, scores(L2Activation(), evidence), "head")
    np.testing.assert_allclose(heads, np.sqrt((mixed**2).mean((0, 2)).sum(1)), rtol=1e-4)
    o = (weights["o"].reshape(3, 4, 8).astype(np.float64) ** 2).sum(2)
    costs = np.sqrt((mixed**2).mean((0, 2)) * o)
    heads = by_role(evidence, scores(Wanda(), evidence), "head")
    np.testing.assert_allclose(heads, costs.sum(1) / np.sqrt((costs**2).sum()), rtol=1e-4)
    ranks = np.linalg.matrix_rank(mixed.astype(np.float32)).mean(0)
    np.testing.assert_allclose(by_role(evidence, scores(HRank(), evidence), "head"), ranks)
    rows = mixed.transpose(0, 1, 3, 2).reshape(3, 3, 20)
    lost = [
        [np.linalg.norm(sample, "nuc") - np.linalg.norm(np.delete(sample, h, 0), "nuc") for h in range(3)]
        for sample in rows
    ]
    np.testing.assert_allclose(by_role(evidence, scores(Chip(), evidence), "head"), np.mean(lost, 0), rtol=1e-4)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", [name for name, make in criteria().items() if "calibration" in make(0).needs])
def test_every_criterion_scores_an_attention(host: str, name: str) -> None:
    """Head widths of queries and keys are read by no layer: what the product of the two reads is looked at."""
    weights = {each: normal(8, 12) for each in "qkv"} | {"o": normal(12, 8)}
    weights["q"][:, 1::4] = weights["k"][:, 1::4] = 0.01 * normal(8, 3)
    evidence = attention(host, weights, 3, [normal(4, 5, 8) for _ in range(2)])
    if name == "apoz":
        with pytest.raises(UsageError, match="no zeros"):
            criteria()[name](0).score(evidence)
        return
    found = scores(criteria()[name](0), evidence)
    for group in evidence.structure.groups:
        if {place.tensor.split(".")[0] for place in group.slices} == {"q", "k"} and name not in (
            "entropy",
            "hrank",
            "obs",
        ):
            assert np.argmin(found[group.leaf]) == 1


@pytest.mark.parametrize("criterion", [L2Activation(), Wanda(), ThiNet(), Fidelity()], ids=lambda each: each.name)
def test_half_precision_is_as_single(criterion: Criterion) -> None:
    single = only(scores(criterion, perceptron("onnx", FIRST, SECOND, BATCHES)))
    half = perceptron("onnx", *(each.astype(np.float16) for each in (FIRST, SECOND)), _halves(BATCHES))
    np.testing.assert_allclose(only(scores(criterion, half)), single, rtol=TOLERANCE)


def _halves(batches: list[Array]) -> list[Array]:
    return [batch.astype(np.float16) for batch in batches]


def test_criteria_without_inputs_are_refused() -> None:
    evidence = perceptron("onnx", FIRST, SECOND, BATCHES)
    with pytest.raises(UsageError, match="calibration inputs"):
        L2Activation().score(Evidence(evidence.structure, evidence.weights))


def test_what_tells_nothing_apart_is_refused() -> None:
    x = normal(8, 5)
    evidence = perceptron("onnx", normal(5, 4), normal(4, 2), [x], relu=False)
    with pytest.raises(UsageError, match="no zeros"):
        Apoz().score(evidence)
    with pytest.raises(UsageError, match="same rank"):
        HRank().score(evidence)
    with pytest.raises(UsageError, match="bins"):
        Entropy(bins=1)


def test_positions_inside_a_branch_are_scored_by_magnitude() -> None:
    text = """g (float[2, 3] x, bool yes) => (float[2, 3] y) {
        y = If(yes) <
            then_branch = t () => (float[2, 3] p) { h = MatMul(x, a) r = Relu(h) p = MatMul(r, b) },
            else_branch = e () => (float[2, 3] s) { h2 = MatMul(x, c) r2 = Relu(h2) s = MatMul(r2, d) }
        >
    }"""
    model = onnx_program(text, a=normal(3, 6), b=normal(6, 3), c=normal(3, 7), d=normal(7, 3))
    told: list[str] = []
    calibration = Calibration(model, [{"x": normal(2, 3), "yes": np.array(True)}], progress=told.append)
    evidence = Evidence(program_of(model).read(), program_of(model).weights(), {"calibration": calibration})
    assert [group.size for group in evidence.structure.groups] == [6, 7]
    expected = Magnitude(2).score(evidence)
    for leaf, values in scores(L2Activation(), evidence).items():
        np.testing.assert_array_equal(values, expected[leaf])
    assert "2 of 2 groups are inside loops or branches: scored by magnitude" in told
