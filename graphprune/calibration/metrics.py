"""What a model is good for, as a number on labelled batches.

================= ==================================================================================================
``accuracy``      share of rows whose highest score is the label (-100: does not count); of tokens and pixels each
``top5``          share of rows whose label is among the five highest scores
``cross-entropy`` mean of minus the logarithm of the label's probability, in nats; lower is better
``perplexity``    its exponential; lower is better
``mse``           mean of the squared difference between output and target; lower is better
================= ==================================================================================================

The scores are the first output. Language models that come without labels are judged by the next token of their own
input. A function ``(outputs, targets) -> number`` of your own gets all outputs (a list, each joined over the batches)
and all targets at once; the higher, the better.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.calibration.fidelity import log_distribution
from graphprune.errors import UsageError

__all__ = ["METRICS", "Meter", "Metric", "meter", "next_tokens"]

Array: TypeAlias = npt.NDArray[Any]
Metric: TypeAlias = str | Callable[[list[Array], Array | None], float]
"""A name of :data:`METRICS`, or a function of all outputs and targets; a function's numbers are better the higher."""

SKIPPED = -100
"""The label of what does not count, as PyTorch has it."""


class Meter(ABC):
    """Adds up one metric, batch by batch."""

    name = ""
    higher_is_better = True
    needs_labels = True

    @abstractmethod
    def add(self, outputs: Sequence[Array], targets: Array | None) -> None:
        """One batch."""

    @abstractmethod
    def value(self) -> float:
        """The metric on all batches so far."""


class _Top(Meter):
    def __init__(self, name: str, best: int) -> None:
        self.name, self._best = name, best
        self._hit = self._rows = 0

    def add(self, outputs: Sequence[Array], targets: Array | None) -> None:
        scores, labels = _scored(outputs, targets, self.name)
        best = min(self._best, scores.shape[1])
        top = scores.argmax(1)[:, None] if best == 1 else np.argpartition(-scores, best - 1, axis=1)[:, :best]
        self._hit += int((top == labels[:, None]).any(1).sum())
        self._rows += len(labels)

    def value(self) -> float:
        return self._hit / self._rows if self._rows else math.nan


class _CrossEntropy(Meter):
    higher_is_better = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._sum, self._rows = 0.0, 0

    def add(self, outputs: Sequence[Array], targets: Array | None) -> None:
        scores, labels = _scored(outputs, targets, self.name)
        self._sum -= float(log_distribution(scores)[np.arange(len(labels)), labels].sum())
        self._rows += len(labels)

    def value(self) -> float:
        mean = self._sum / self._rows if self._rows else math.nan
        return math.exp(min(mean, 700.0)) if self.name == "perplexity" else mean


class _MeanSquare(Meter):
    name = "mse"
    higher_is_better = False

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, outputs: Sequence[Array], targets: Array | None) -> None:
        if targets is None or outputs[0].size != targets.size:
            shape = None if targets is None else targets.shape
            raise UsageError(
                f"--metric mse: targets {shape} are not like the output {outputs[0].shape}; give such ones"
            )
        wanted = targets.reshape(outputs[0].shape).astype(np.float64)
        self._sum += float(np.square(outputs[0] - wanted).sum())
        self._count += targets.size

    def value(self) -> float:
        return self._sum / self._count if self._count else math.nan


class _Own(Meter):
    needs_labels = False

    def __init__(self, function: Callable[[list[Array], Array | None], float]) -> None:
        self.name = str(getattr(function, "__name__", "metric"))
        self._function = function
        self._outputs: list[list[Array]] = []
        self._targets: list[Array] = []

    def add(self, outputs: Sequence[Array], targets: Array | None) -> None:
        self._outputs.append(list(outputs))
        if targets is not None:
            self._targets.append(targets)

    def value(self) -> float:
        try:
            joined = [
                np.concatenate([np.atleast_1d(value) for value in own]) for own in zip(*self._outputs, strict=True)
            ]
            targets = np.concatenate(self._targets) if self._targets else None
        except ValueError as error:
            raise UsageError(f"metric '{self.name}': outputs differ in shape between batches ({error})") from None
        return float(self._function(joined, targets))


METRICS: Mapping[str, Callable[[], Meter]] = {
    "accuracy": lambda: _Top("accuracy", 1),
    "top5": lambda: _Top("top5", 5),
    "cross-entropy": lambda: _CrossEntropy("cross-entropy"),
    "perplexity": lambda: _CrossEntropy("perplexity"),
    "mse": _MeanSquare,
}
"""Metrics by name."""


def meter(metric: Metric) -> Meter:
    """A fresh meter of a metric.

    Raises:
        UsageError: there is no metric of that name.
    """
    if callable(metric):
        return _Own(metric)
    if metric not in METRICS:
        raise UsageError(f"no metric is called '{metric}'; there are: {', '.join(METRICS)}")
    return METRICS[metric]()


def next_tokens(outputs: Sequence[Array], tokens: Array | None) -> Array | None:
    """The labels of a language model: at each place the token after it, and nothing at the last.

    None where the scores are not one row for each of ``tokens``.
    """
    if tokens is None or not outputs or outputs[0].ndim != 3 or tokens.dtype.kind not in "iu":
        return None
    if outputs[0].shape[:2] != tokens.shape:
        return None
    labels = np.full(tokens.shape, SKIPPED, np.int64)
    labels[:, :-1] = tokens[:, 1:]
    return labels


def _scored(outputs: Sequence[Array], targets: Array | None, name: str) -> tuple[Array, Array]:
    """Rows of scores and their labels, without those that do not count.

    Raises:
        UsageError: labels are missing, do not fit the output, or name classes that it does not have.
    """
    scores = outputs[0]
    if targets is None:
        raise UsageError(f"--metric {name} needs labels: an array 'labels' in the .npz, folders by class, or --labels")
    if targets.dtype.kind not in "iub":
        if targets.ndim == scores.ndim and targets.shape == scores.shape:
            targets = targets.argmax(-1)
        elif np.array_equal(targets, targets.round()):
            targets = targets.astype(np.int64)
        else:
            raise UsageError(f"--metric {name}: labels are {targets.dtype}, not whole numbers of classes")
    if scores.ndim > 2 and scores.shape[:1] + scores.shape[2:] == targets.shape:
        scores = np.moveaxis(scores, 1, -1)
    elif scores.shape[:-1] != targets.shape and math.prod(scores.shape[1:-1]) == 1:
        scores = scores.reshape(scores.shape[0], scores.shape[-1])
    if scores.ndim < 2 or scores.shape[:-1] != targets.shape:
        raise UsageError(
            f"--metric {name}: labels {targets.shape} do not fit the output {outputs[0].shape}: give one a row"
        )
    rows, labels = scores.reshape(-1, scores.shape[-1]), targets.reshape(-1).astype(np.int64)
    counted = labels != SKIPPED
    rows, labels = rows[counted], labels[counted]
    if len(labels) and not 0 <= labels.min() <= labels.max() < rows.shape[1]:
        wrong = int(labels.max() if labels.max() >= rows.shape[1] else labels.min())
        raise UsageError(f"--metric {name}: a label is {wrong} and the output has {rows.shape[1]} classes, from 0")
    return rows, labels
