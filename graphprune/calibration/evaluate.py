"""The slim model beside the dense one: how alike they are, and what both are good for, with the control for recovery.

A compensation that makes a pruned model better might make any model better. So the *origin control* is the dense model
after the same recovery: only what the slim model has beyond that is owed to how it was pruned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.calibration.data import Batches
from graphprune.calibration.fidelity import Array, Fidelity, Likeness, Runs
from graphprune.calibration.metrics import Meter, Metric, meter, next_tokens
from graphprune.calibration.pieces import as_array
from graphprune.errors import UsageError

__all__ = ["Evaluation", "Figures", "evaluate", "tokens_of"]


@dataclass(frozen=True, slots=True)
class Figures:
    """One metric of the dense model, the slim one, and the dense one after the same recovery (the origin control)."""

    name: str
    dense: float
    slim: float
    origin: float | None = None
    higher_is_better: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; figures that are not finite are null."""
        figures = {"dense": self.dense, "slim": self.slim, "origin": self.origin}
        finite = {key: None if value is None or not math.isfinite(value) else value for key, value in figures.items()}
        return {"name": self.name, **finite, "higher_is_better": self.higher_is_better}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the slim model is like: its fidelity, the metric that was asked for, and how the control does."""

    fidelity: Fidelity
    metric: Figures | None = None
    origin: Fidelity | None = None
    data: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "data": self.data,
            "fidelity": self.fidelity.to_dict(),
            "metric": None if self.metric is None else self.metric.to_dict(),
            "origin": None if self.origin is None else self.origin.to_dict(),
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: the fidelity, and the metric with its control."""
        said = [self.fidelity.summary]
        if self.metric is not None:
            own = self.metric
            control = "" if own.origin is None else f" (dense after the same recovery: {own.origin:.4g})"
            said.append(f"{own.name}: dense {own.dense:.4g}, slim {own.slim:.4g}{control}")
        return tuple(said)


def evaluate(
    dense: Runs,
    slim: Runs,
    batches: Batches,
    *,
    metric: Metric | None = None,
    origin: Runs | None = None,
    names: Sequence[str] = (),
) -> Evaluation:
    """Compare ``slim`` with ``dense``, both on ``batches``; one batch of outputs is in memory at a time.

    ``origin`` is the dense model after the same recovery as the slim one, on the same batches: ``dense`` itself where
    the recovery leaves it as it is. ``names`` are what outputs are called.

    Raises:
        UsageError: no such metric, or labels that it needs are missing or do not fit.
    """
    meters = [None if metric is None or runs is None else meter(metric) for runs in (dense, slim, origin)]
    tokens = bool(batches.feeds) and tokens_of(batches.feeds[0]) is not None
    own, control = (Likeness(names, batches.counts, tokens) for _ in range(2))
    apart = origin is not None and origin is not dense
    following: Iterator[list[Array] | None] = (
        iter([None] * len(batches)) if origin is None or not apart else origin.outputs()
    )
    for index, (before, after, other) in enumerate(zip(dense.outputs(), slim.outputs(), following, strict=True)):
        third = before if origin is dense else other
        own.add(before, after)
        if third is not None:
            control.add(before, third)
        targets = None if batches.targets is None else batches.targets[index]
        if metric is not None and targets is None:
            targets = next_tokens(before, tokens_of(batches.feeds[index]))
        for each, outputs in zip(meters, (before, after, third), strict=True):
            if each is not None and outputs is not None:
                _add(each, outputs, targets, batches)
    figures = None
    first, second, last = meters
    if first is not None and second is not None:
        value = None if last is None else last.value()
        figures = Figures(first.name, first.value(), second.value(), value, first.higher_is_better)
    likeness = None if origin is None else control.result(batches.synthetic)
    return Evaluation(own.result(batches.synthetic), figures, likeness, batches.summary)


def _add(each: Meter, outputs: Sequence[Array], targets: Array | None, batches: Batches) -> None:
    if targets is None and each.needs_labels and batches.synthetic:
        raise UsageError(
            f"--metric {each.name} needs labels, and synthetic inputs have none: give --calib or --eval data"
        )
    each.add(outputs, targets)


def tokens_of(feed: Any) -> Array | None:
    """The token ids that a feed holds: its first input, where that is integers."""
    value = feed
    while isinstance(value, dict | list | tuple):
        if isinstance(value, dict) and "input_ids" in value:
            value = value["input_ids"]
        elif not value:
            return None
        else:
            value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    if value is None or not hasattr(value, "shape"):
        return None
    array = as_array(value, "tokens")
    return array if array.ndim == 2 and np.issubdtype(array.dtype, np.integer) else None
