"""Fidelity and metrics against figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from graphprune.calibration.data import load_batches
from graphprune.calibration.evaluate import evaluate
from graphprune.calibration.fidelity import Array, fidelity
from graphprune.calibration.metrics import meter, next_tokens
from graphprune.errors import UsageError
from graphprune.sample_inputs import InputSpec


@dataclass
class Told:
    """A program whose outputs are told."""

    batches: list[list[Array]]

    def outputs(self) -> Iterator[list[Array]]:
        yield from self.batches


def one(*arrays: object) -> Told:
    return Told([[np.asarray(array, np.float32)] for array in arrays])


def test_figures_of_scores() -> None:
    dense = one([[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]])
    slim = one([[0.0, 2.0], [0.0, 1.0]], [[1.0, 0.0]])
    found = fidelity(dense, slim, counts=[2, 1])
    (own,) = found.outputs
    assert found.samples == 3
    assert own.cosine == pytest.approx(2 / 3)
    assert own.relative_error == pytest.approx(math.sqrt(8 / 6))
    assert own.agreement == pytest.approx(2 / 3)
    p = 1 / (1 + math.exp(-2))
    assert own.kl == pytest.approx((p - (1 - p)) * 2 / 3)  # log p - log q is 2 at the first class and -2 at the other
    assert "top-1 agreement 66.7%" in found.summary


def test_probabilities_are_taken_as_they_are() -> None:
    dense, slim = [[0.75, 0.25]], [[0.5, 0.5]]
    (own,) = fidelity(one(dense), one(slim)).outputs
    assert own.kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    (each,) = fidelity(one([[0.9, 0.8]]), one([[0.9, 0.7]])).outputs  # two classes, each for itself
    assert each.kl is None
    assert each.agreement == 1


def test_what_scores_no_classes_has_no_agreement() -> None:
    boxes = np.ones((2, 8, 4))
    (own,) = fidelity(one(boxes), one(2 * boxes)).outputs
    assert (own.agreement, own.kl, own.cosine, own.relative_error) == (None, None, pytest.approx(1), pytest.approx(1))
    (named,) = fidelity(one(boxes[:, 0]), one(boxes[:, 0]), names=["boxes"]).outputs
    assert (named.name, named.agreement) == ("boxes", None)
    (words,) = fidelity(one(3 * boxes), one(3 * boxes), tokens=True).outputs
    assert (words.agreement, words.kl) == (1, 0)
    ids = Told([[np.array([[1, 2, 3, 4]])]]), Told([[np.array([[1, 2, 3, 5]])]])
    assert fidelity(*ids).outputs[0].agreement == 0.75


def test_outputs_that_cannot_be_compared_say_why() -> None:
    found = fidelity(one(np.ones((2, 3)), np.ones((2, 3))), one(np.ones((2, 3)), np.ones((1, 3))))
    assert found.outputs[0].problem == "its shape is (1, 3) and the dense model's (2, 3)"
    broken = fidelity(one([[1.0, 2.0]]), one([[math.nan, 2.0]]))
    assert broken.to_dict()["outputs"] == [
        {
            "name": "output 0",
            "cosine": None,
            "relative_error": None,
            "kl": None,
            "agreement": None,
            "problem": "the slim model gives NaN or infinity",
        }
    ]
    zeros = fidelity(one([[0.0, 0.0]]), one([[0.0, 1.0]]))
    assert zeros.outputs[0].cosine == 0
    assert zeros.to_dict()["outputs"][0]["relative_error"] is None  # infinite
    with pytest.raises(UsageError, match="the dense model has 1 outputs and the slim one 2"):
        fidelity(one([[1.0]]), Told([[np.ones((1, 1)), np.ones((1, 1))]]))


def value(name: str, outputs: object, targets: object) -> float:
    own = meter(name)
    own.add([np.asarray(outputs, np.float32)], None if targets is None else np.asarray(targets))
    return own.value()


def test_metrics_by_hand() -> None:
    scores = [[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]]
    assert value("accuracy", scores, [1, 2]) == 0.5
    assert value("accuracy", scores, [1, -100]) == 1  # what does not count
    assert value("accuracy", scores, [[0, 1, 0], [0, 1.0, 0]]) == 0.5  # one-hot
    many = np.arange(10)[None, :]
    assert [value("top5", many, [label]) for label in (9, 5, 4)] == [1, 1, 0]
    assert value("cross-entropy", [[0.0, 0.0]], [1]) == pytest.approx(math.log(2))
    assert value("perplexity", [[0.0, 0.0]], [1]) == pytest.approx(2)
    assert value("cross-entropy", [[0.25, 0.75]], [1]) == pytest.approx(-math.log(0.75))  # probabilities already
    assert value("mse", [[1.0], [3.0]], [[1.0], [1.0]]) == 2
    segmented = np.zeros((1, 2, 2, 2))
    segmented[0, 1, 0, 0] = 1
    assert value("accuracy", segmented, [[[1, 0], [0, 1]]]) == 0.75


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "message"),
    [
        ("accuracy", [[1.0, 2.0]], None, "needs labels"),
        ("accuracy", [[1.0, 2.0]], [2], "a label is 2 and the output has 2 classes"),
        ("accuracy", [[1.0, 2.0]], [0.5], "labels are float64, not whole numbers"),
        ("accuracy", [[1.0, 2.0]], [0, 1], "do not fit the output"),
        ("mse", [[1.0, 2.0]], [1.0], "are not like the output"),
        ("bleu", [[1.0]], [1], "no metric is called 'bleu'; there are: accuracy"),
    ],
)
def test_metrics_refuse_what_does_not_fit(name: str, outputs: object, targets: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        value(name, outputs, targets)


def test_a_language_model_is_judged_by_its_next_token() -> None:
    tokens = np.array([[3, 1, 2]])
    labels = next_tokens([np.zeros((1, 3, 4))], tokens)
    assert labels is not None
    assert labels.tolist() == [[1, 2, -100]]
    batches = load_batches({"ids": tokens}, [InputSpec("ids", np.dtype("int64"), ("N", "T"))])
    sure = np.full((1, 3, 4), -50.0)
    sure[0, 0, 1] = sure[0, 1, 2] = 50
    found = evaluate(Told([[sure]]), Told([[np.zeros((1, 3, 4))]]), batches, metric="perplexity")
    assert found.metric is not None
    assert (found.metric.dense, found.metric.slim) == (pytest.approx(1), pytest.approx(4))
    assert not found.metric.higher_is_better


def test_the_control_stands_beside_both_and_own_functions_see_everything() -> None:
    data = {"x": np.zeros((4, 1)), "labels": np.array([0, 1, 1, 1])}
    batches = load_batches(data, [InputSpec("x", np.dtype("float32"), (2, 1))])
    assert batches.targets is not None
    right = Told([[np.eye(2)[labels]] for labels in batches.targets])
    wrong = Told([[np.eye(2)[1 - labels]] for labels in batches.targets])

    def share(outputs: list[Array], targets: Array | None) -> float:
        assert targets is not None
        assert len(outputs[0]) == len(targets) == 4
        return float((outputs[0].argmax(1) == targets).mean())

    found = evaluate(right, wrong, batches, metric=share, origin=right, names=["scores"])
    assert found.metric is not None
    assert found.metric.to_dict() == {
        "name": "share",
        "dense": 1.0,
        "slim": 0.0,
        "origin": 1.0,
        "higher_is_better": True,
    }
    assert found.origin is not None
    assert (found.fidelity.agreement, found.origin.agreement) == (0, 1)
    assert found.lines[1] == "share: dense 1, slim 0 (dense after the same recovery: 1)"
    assert found.to_dict()["fidelity"]["outputs"][0]["name"] == "scores"


def test_synthetic_inputs_have_no_metric_that_needs_labels() -> None:
    batches = load_batches("synthetic", [InputSpec("x", np.dtype("float32"), (2, 1))], limit=2)
    with pytest.raises(UsageError, match="synthetic inputs have none: give --calib or --eval data"):
        evaluate(one(np.eye(2)), one(np.eye(2)), batches, metric="accuracy")
    assert "SYNTHETIC" in evaluate(one(np.eye(2)), one(np.eye(2)), batches).lines[0]
