"""Group norm: a position matters as much as all weights together that go with it.

``s[k] = sqrt(sum over slices W of the group of ||W[k]||^2)`` (DepGraph, Fang et al. 2023,
https://arxiv.org/abs/2301.12900): rows of the weights that produce the position, columns of those that read it, and
scales of normalisations on the way (ONNX models have batch normalisation folded into the rows). Biases and stored
statistics do not count. Needs no data.

Other than :class:`~graphprune.score.magnitude.Magnitude` it sums, so positions with more slices weigh more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.norms import norms
from graphprune.score.positions import Positions
from graphprune.score.reduction import Reduction
from graphprune.score.scales import scales

__all__ = ["GroupNorm"]


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """The norm of everything that a position takes along."""

    reduction: Reduction = "sum"
    name: str = "group-norm"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """Read each weight that a group has a part in once, in blocks."""
        positions = Positions(evidence.structure)
        also = frozenset(scales(evidence.structure))
        return positions.split(np.sqrt(norms(evidence, positions, 2, self.reduction, also)))


register("group-norm", lambda _: GroupNorm())
