"""APoZ: a position matters as much as it is not zero.

``s[k] = E[1(A_k != 0)] = 1 - APoZ_k``, the mean over samples, space and the members of a position, where APoZ is the
average percentage of zeros (Hu et al. 2016, Network Trimming, https://arxiv.org/abs/1607.03250). Needs calibration
inputs.

It tells positions apart only behind functions that give exact zeros, such as ReLU; a program that shows no zero in
any of its activations is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.errors import UsageError
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.readings import CALIBRATION, Readings, averages
from graphprune.score.reduction import Reduction

__all__ = ["Apoz"]


@dataclass(frozen=True, slots=True)
class Apoz:
    """The share of a position's activations that are not zero."""

    reduction: Reduction = "mean"
    name: str = "apoz"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs.

        Raises:
            UsageError: no activation is ever zero, so that all positions are alike.
        """
        readings = Readings(evidence)
        scores = averages(readings, lambda a: a != 0, self.reduction)
        if readings.all and all((scores[leaf] == 1).all() for reading in readings for leaf in reading.members):
            raise UsageError("criterion 'apoz' finds no zeros: nothing behind a ReLU can be pruned; use l2-activation")
        return scores


register("apoz", lambda _: Apoz())
