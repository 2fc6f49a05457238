"""Magnitude: a position matters as much as the weights that go with it.

``s[k] = reduce over slices W of the group of sum |W[k]|^p``, where the slices of a position are its rows in the weights
that produce it and its columns in those that read it (Li et al. 2017, https://arxiv.org/abs/1608.08710; group-wise as
in DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900). L2 is the root of that. Needs no data.

Only weights of two or more dimensions count (:mod:`graphprune.score.norms`): scales and biases of normalisations, and
biases, are of another order of magnitude and say little where a statistic rescales them.
The default reduction is the mean, so that parts of one axis that feed different numbers of layers stay comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.norms import norms
from graphprune.score.positions import Positions
from graphprune.score.reduction import Reduction

__all__ = ["Magnitude"]


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Norm ``p`` (1 or 2) of the weights that stand or fall with a position, one number from all slices."""

    p: int = 1
    reduction: Reduction = "mean"
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """``l1`` or ``l2``."""
        return f"l{self.p}"

    def score(self, evidence: Evidence) -> Scores:
        """Read each weight that a group has a part in once, in blocks."""
        positions = Positions(evidence.structure)
        values = norms(evidence, positions, self.p, self.reduction)
        return positions.split(np.sqrt(values) if self.p == 2 else values)


register("l1", lambda _: Magnitude(1))
register("l2", lambda _: Magnitude(2))
