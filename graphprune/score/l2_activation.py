"""L2 activation: a position matters as much as the norm of its activation.

``s[k] = sqrt(E ||A_k||^2)`` over samples and space, where ``A_k`` is all that a position puts into what reads it: a
channel, an inner unit of a feed-forward network, a channel of the normalised stream, or the whole output of a head as
it enters the output projection (as in Minitron, Muralidharan et al. 2024, https://arxiv.org/abs/2407.14679; Molchanov
et al. 2017, https://arxiv.org/abs/1611.06440). Needs calibration inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.readings import CALIBRATION, Readings, averages
from graphprune.score.reduction import Reduction

__all__ = ["L2Activation"]


@dataclass(frozen=True, slots=True)
class L2Activation:
    """The root of the mean squared norm of a position's activations."""

    reduction: Reduction = "mean"
    name: str = "l2-activation"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs."""
        return averages(Readings(evidence), np.square, self.reduction, norm=True)


register("l2-activation", lambda _: L2Activation())
