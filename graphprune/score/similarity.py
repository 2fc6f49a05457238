"""Similarity: of filters that point the same way, one is enough.

Filters are picked one after the other, each the one that is least like those picked before it (the farthest first, as
Gonzalez' clustering does; the first is the longest, as in a tie). ``s[k] = 1 - max over j picked before k of
cos(W[k], W[j])``: whatever number of positions stays, each of them stands for a cluster, and of parallel filters the
longest stays (clustering of filters: SCSP, Zhou et al. 2018, https://arxiv.org/abs/1806.05320). Needs no data.

Where several layers make the same positions their filters are put side by side, so that positions are alike only if all
of them are. Filters that point opposite ways are not alike: what follows a rectifier cannot tell one from the other.
Depthwise filters do not count. Axes that no layer with stored weights makes are judged by the L2 norm of their slices.
Cosines of an axis are in memory together: of axes with more than 16384 positions those of 16384 at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.axes import Leaf
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.filters import Filters, Matrix, filters, places
from graphprune.score.norms import norms
from graphprune.score.pools import where_missing
from graphprune.score.positions import Indices, Numbers, Positions

__all__ = ["Similarity", "distinctness"]

MOST = 1 << 14  # positions that are compared with one another: 1 GB of cosines as float32


@dataclass(frozen=True, slots=True)
class Similarity:
    """How little a position is like those that are kept before it."""

    name: str = "similarity"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """A weight is read once for each kind of its positions (heads, their width)."""
        positions = Positions(evidence.structure)
        values, seen = np.zeros(positions.total), np.zeros(positions.total, np.bool_)
        for leaves, makers in _sets(evidence, positions):
            number = np.concatenate([positions.numbers(leaf) for leaf in leaves])
            for start in range(0, len(number), MOST):
                own = slice(start, start + MOST)
                values[number[own]] = distinctness(sum(_products(evidence, maker, leaves, own) for maker in makers))  # type: ignore[arg-type]
            seen[number] = True
        return positions.split(
            where_missing(positions, values, seen, lambda: np.sqrt(norms(evidence, positions, 2, "mean")))
        )


def _sets(evidence: Evidence, positions: Positions) -> Iterator[tuple[list[Leaf], list[Filters]]]:
    """Groups whose positions can be compared, with the filters that make them.

    Parts of one axis are compared with each other where the same layers make them.
    """
    makers: dict[Leaf, list[tuple[int, bool]]] = {}
    known = [maker for maker in filters(evidence.structure) if not maker.apart]
    for number, maker in enumerate(known):
        if len(positions.places(maker.axis).number):
            for leaf, index in places(evidence.structure, maker.axis):
                if leaf in positions.first:
                    makers.setdefault(leaf, []).append((number, index.shape[1] == 1))
    sets: dict[tuple[object, ...], list[Leaf]] = {}
    for leaf, made in makers.items():
        once = all(single for _, single in made)
        sets.setdefault((leaf.pool, None if once else leaf, *made), []).append(leaf)
    for leaves in sets.values():
        yield leaves, [known[number] for number, _ in makers[leaves[0]]]


def _products(evidence: Evidence, maker: Filters, leaves: Sequence[Leaf], own: slice) -> Matrix:
    """Products of the filters of positions ``own`` of some leaves with one another."""
    index: dict[Leaf, Indices] = dict(places(evidence.structure, maker.axis))
    chosen = np.concatenate([index[leaf] for leaf in leaves])[own]
    rows = maker.rows(evidence)[chosen].reshape(len(chosen), -1)
    product: Matrix = rows @ rows.T
    return product


def distinctness(products: Matrix) -> Numbers:
    """One number for each vector, from the products of all with one another.

    >>> vectors = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.0]])
    >>> distinctness(vectors @ vectors.T)
    array([0., 1., 1., 0.])
    """
    norms = np.sqrt(np.diagonal(products))
    order = np.argsort(-norms, kind="stable")
    order = order[norms[order] > 0]
    scores = np.zeros(len(products))
    if not len(order):
        return scores
    unit = 1 / norms[order]
    cosines = products[np.ix_(order, order)] * unit[:, None] * unit
    nearest = np.zeros(len(order))
    for _ in range(len(order)):
        pick = int(np.argmin(nearest))
        scores[order[pick]] = max(1 - nearest[pick], 0.0)
        nearest = np.maximum(nearest, cosines[pick])
        nearest[pick] = np.inf
    return scores


register("similarity", lambda _: Similarity())
