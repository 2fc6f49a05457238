"""FPGM: filters near the geometric median of a layer's filters can be made up for by the others.

``s[k] = sum over j of ||W[k] - W[j]||_2`` over the filters of the layer that makes position k (He et al. 2019,
https://arxiv.org/abs/1811.00250); of several layers that make the same positions, reduced. Needs no data.

Depthwise filters are not compared, for each reads a channel of its own. Axes that no layer with stored weights makes
(of quantised layers, for instance) are judged by the L2 norm of their slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.filters import Matrix, filters
from graphprune.score.norms import norms
from graphprune.score.pools import where_missing
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction

__all__ = ["Fpgm", "distance_sums"]

BLOCK = 1024  # rows whose distances to all others are in memory at once


@dataclass(frozen=True, slots=True)
class Fpgm:
    """Sums of distances to the other filters, from matrix products: a layer of n filters takes n^2 of them."""

    reduction: Reduction = "mean"
    name: str = "fpgm"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """One weight is in memory at a time."""
        positions = Positions(evidence.structure)
        reduced = Reduced(positions, self.reduction)
        for layer in filters(evidence.structure):
            if layer.apart or not len(positions.places(layer.axis).number):
                continue
            for row, number, matrix in layer.parts(evidence, positions):
                reduced.take(number, distance_sums(matrix)[row])
        values = where_missing(
            positions, reduced.result(), reduced.seen, lambda: np.sqrt(norms(evidence, positions, 2, "mean"))
        )
        return positions.split(values)


def distance_sums(rows: Matrix) -> Numbers:
    """For each row the sum of its distances to all rows.

    >>> distance_sums(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    array([ 5., 10.,  5.])
    """
    rows = rows - rows.mean(0)  # distances stay, and squares that are subtracted from each other become small
    squares = np.einsum("ij,ij->i", rows, rows)
    sums = np.zeros(len(rows))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        distances = squares[part, None] + squares - 2 * (rows[part] @ rows.T)
        own = np.arange(len(distances))
        distances[own, start + own] = 0
        sums[part] = np.sqrt(np.maximum(distances, 0, out=distances), out=distances).sum(1, dtype=np.float64)
    return sums


register("fpgm", lambda _: Fpgm())
