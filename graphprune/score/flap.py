"""FLAP: a position matters as much as its fluctuation disturbs what reads it; what is constant goes into a bias.

``s[j] = Var(X_j) * ||W[:, j]||^2`` in each layer that reads it, added up over the members of a position (the columns of
a head), then standardised in each group to mean 0 and deviation 1 (weighted input feature variance: An et al. 2023,
https://arxiv.org/abs/2312.11983). Needs calibration inputs. The mean of what is removed is lost unless compensation
adds ``W[:, j] E[X_j]`` to the bias.

Layers that read one position are first divided by the sum of their own numbers, so that they count alike. Scores are
comparable across groups as they are: a global ranking as in the paper takes normaliser ``none``. Positions that no
layer reads are scored by ``Var(X_j)`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.moments import Moments
from graphprune.score.pools import pools
from graphprune.score.positions import Numbers, Positions
from graphprune.score.readings import CALIBRATION, Readings, column_norms
from graphprune.score.reduction import Reduction

__all__ = ["Flap"]


@dataclass(frozen=True, slots=True)
class Flap:
    """Variance times squared weight norm, standardised by group; parts of one axis (equal ``pool``) are one group."""

    reduction: Reduction = "mean"
    name: str = "flap"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs; each weight is read once."""
        readings = Readings(evidence)
        reduced = readings.reduced(self.reduction)
        for reading, moments in Moments.of(readings):
            variance = moments.variance
            for weights in [column_norms(evidence, layer) for layer in reading.layers] or [np.ones_like(variance)]:
                costs = variance * weights
                costs /= costs.sum() or 1.0
                for leaf, index in reading.members.items():
                    reduced.take(readings.numbers(leaf), costs[index].sum(1))
        return readings.scores(reduced, lambda values: _standardised(values, readings.positions))


def _standardised(values: Numbers, positions: Positions) -> Numbers:
    found = np.zeros_like(values)
    for numbers in pools(positions):
        own = values[numbers]
        found[numbers] = (own - own.mean()) / (own.std() or 1.0)
    return found


register("flap", lambda _: Flap())
