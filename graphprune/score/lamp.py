"""LAMP: a position's share of what would be left if all weaker ones had gone before it.

``s[k] = ||w[k]||^2 / sum of ||w[j]||^2 over the j of the axis that are at least as strong`` (Lee et al. 2021,
https://arxiv.org/abs/2010.07611, there for single weights of a layer; here for positions of an axis, with the squared
norms of all their slices, reduced). The strongest position of each axis scores 1, so that a ranking over the whole
network empties none. Needs no data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.norms import norms
from graphprune.score.pools import pools
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduction

__all__ = ["Lamp", "shares"]


@dataclass(frozen=True, slots=True)
class Lamp:
    """Squared norms, each divided by the sum of those that are not smaller."""

    reduction: Reduction = "mean"
    name: str = "lamp"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """Read each weight that a group has a part in once, in blocks."""
        positions = Positions(evidence.structure)
        values = norms(evidence, positions, 2, self.reduction)
        for numbers in pools(positions):
            values[numbers] = shares(values[numbers])
        return positions.split(values)


def shares(values: Numbers) -> Numbers:
    """Each number divided by the sum of those that are not smaller; 0 where all are 0.

    >>> shares(np.array([3.0, 1.0, 4.0]))
    array([0.42857143, 0.125     , 1.        ])
    """
    order = np.sort(values)
    sums = np.cumsum(order[::-1])[::-1]
    own = sums[np.searchsorted(order, values)]
    return np.divide(values, own, out=np.zeros_like(values), where=own > 0)


register("lamp", lambda _: Lamp())
