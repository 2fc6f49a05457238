"""Mean activation: a position matters as much as its activation is large on average.

``s[k] = E|A_k|``, the mean over samples, space and the members of a position (Molchanov et al. 2017,
https://arxiv.org/abs/1611.06440). Needs calibration inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.readings import CALIBRATION, Readings, averages
from graphprune.score.reduction import Reduction

__all__ = ["MeanActivation"]


@dataclass(frozen=True, slots=True)
class MeanActivation:
    """The mean size of a position's activations."""

    reduction: Reduction = "mean"
    name: str = "mean-activation"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs."""
        return averages(Readings(evidence), np.abs, self.reduction)


register("mean-activation", lambda _: MeanActivation())
