"""Wanda: a position matters as much as its activation times the weights that it meets.

``s[j] = ||X_j|| * ||W[:, j]||`` in each layer that reads it, added up over the members of a position (the columns of a
head), where ``||X_j||`` is the root mean square over the calibration inputs and the norm of the weights is over all
outputs and positions of a kernel (Sun et al. 2023, https://arxiv.org/abs/2306.11695; structured as Wanda-sp in An et
al. 2023, https://arxiv.org/abs/2312.11983). Needs calibration inputs.

Layers are of different scale, so each one's numbers are divided by ``sqrt(sum over j of s[j]^2)``, what its result
would measure if its inputs were independent; then the layers that read a position are reduced to one number. Positions
that no layer reads are scored by ``||X_j||`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.moments import Moments
from graphprune.score.readings import CALIBRATION, Readings, column_norms
from graphprune.score.reduction import Reduction

__all__ = ["Wanda"]


@dataclass(frozen=True, slots=True)
class Wanda:
    """Activation norm times weight norm, relative to the layer."""

    reduction: Reduction = "mean"
    name: str = "wanda"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs; each weight is read once."""
        readings = Readings(evidence)
        reduced = readings.reduced(self.reduction)
        for reading, moments in Moments.of(readings):
            squares = moments.mean**2 + moments.variance
            for weights in [column_norms(evidence, layer) for layer in reading.layers] or [np.ones_like(squares)]:
                costs = np.sqrt(squares * weights)
                costs /= np.sqrt(np.sum(costs**2)) or 1.0
                for leaf, index in reading.members.items():
                    reduced.take(readings.numbers(leaf), costs[index].sum(1))
        return readings.scores(reduced)


register("wanda", lambda _: Wanda())
