"""Activation entropy: a position matters as much as its activation varies from sample to sample.

``s[k] = -sum over bins of p log p``, in nats, where ``p`` is the histogram of the mean of ``A_k`` over space and
members, one number a sample, in ``bins`` of equal width between its least and its largest value (Luo & Wu 2017,
https://arxiv.org/abs/1706.05791). Needs calibration inputs, better hundreds of samples than tens.

The means are kept, not the activations: of at most ``samples`` samples, evenly spaced in each batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.errors import UsageError
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.positions import Numbers
from graphprune.score.readings import CALIBRATION, Activation, Readings, spaced
from graphprune.score.reduction import Reduction

__all__ = ["Entropy"]


@dataclass(frozen=True, slots=True)
class Entropy:
    """The entropy of a position's mean activation over samples."""

    bins: int = 16
    samples: int = 2048
    reduction: Reduction = "mean"
    name: str = "entropy"
    needs: frozenset[str] = CALIBRATION

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise UsageError(f"criterion 'entropy': {self.bins} bins tell nothing; give at least 2")

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs."""
        readings = Readings(evidence)
        means: list[list[Activation]] = [[] for _ in readings]
        for batch in readings.values():
            for kept, (reading, values) in zip(means, batch, strict=True):
                flat = reading.flat(values)
                kept.append(flat[spaced(len(flat), self.samples, len(readings.calibration))].mean(2))
        reduced = readings.reduced(self.reduction)
        for reading, kept in zip(readings, means, strict=True):
            whole = np.concatenate(kept)
            for leaf, index in reading.members.items():
                reduced.take(readings.numbers(leaf), entropies(whole[:, index].mean(2), self.bins))
        return readings.scores(reduced)


def entropies(values: Activation, bins: int) -> Numbers:
    """The entropy of the histogram of each column.

    >>> entropies(np.array([[0.0, 5.0], [1.0, 5.0]]), 4).round(4).tolist()
    [0.6931, 0.0]
    """
    low = values.min(0)
    width = values.max(0) - low
    places = np.floor((values - low) / np.where(width > 0, width, 1) * bins).astype(np.intp)
    places = np.clip(places, 0, bins - 1)
    columns = values.shape[1]
    counts = np.bincount((places + np.arange(columns) * bins).reshape(-1), minlength=columns * bins)
    shares = counts.reshape(columns, bins) / max(len(values), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: Numbers = np.maximum(-(shares * logs).sum(1), 0)
    return found


register("entropy", lambda _: Entropy())
