"""ThiNet: positions go one by one, each time the one whose loss changes the results of what reads it least.

The contribution of position ``j`` to a sampled result ``i`` of a layer is ``x[i, j] = sum over its features of X W``.
The set ``S`` of removed positions grows by the one that keeps ``cost(S) = sum_i (sum_{j in S} x[i, j])^2`` smallest
(Luo et al. 2017, https://arxiv.org/abs/1707.06342). The score of a position is the cost once it has gone, relative to
the energy ``sum_i (sum_j x[i, j])^2`` of the results: what removing it and all that went before costs. A cost can fall
when contributions cancel; the score then stays at the largest so far, raised a little so that the order holds. Needs
calibration inputs.

At most ``rows`` results of each layer are kept, spread over all batches. Each is one output at one place where all of
them fit in, otherwise the outputs at a random place added up with random signs, whose squares have the mean of the
outputs' squares summed. Layers that read a position count by their relative costs. Each group goes by itself. Positions
that no layer reads are contributions to results of their own, which never cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.layers import Layer
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.positions import Numbers
from graphprune.score.readings import CALIBRATION, Activation, Reading, Readings, layer_matrix

__all__ = ["ThiNet", "greedy"]

Products: TypeAlias = npt.NDArray[np.float64]
"""For each pair of positions what removing both adds beyond removing each, halved; on the diagonal what each costs."""

_RAISE = 1e-9


@dataclass(frozen=True, slots=True)
class ThiNet:
    """The relative cost of removing a position after all that are cheaper to remove."""

    seed: int = 0
    rows: int = 1024
    name: str = "thinet"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs; the weights of the layers that read are read once a batch."""
        readings = Readings(evidence)
        generator = np.random.default_rng(self.seed)
        quota = max(1, -(-self.rows // max(len(readings.calibration), 1)))
        names = [name for reading in readings for name in (reading.tensor, *(layer.y for layer in reading.layers))]
        found: list[list[list[Activation]]] = [[[] for _ in reading.layers or "x"] for reading in readings]
        for batch in readings.calibration.observe(names):
            for reading, kept in zip(readings, found, strict=True):
                x = batch[reading.tensor]
                for layer, pieces in zip(reading.layers, kept, strict=False):
                    pieces.append(_contributions(evidence, layer, x, batch[layer.y], quota, generator))
                if not reading.layers:
                    kept[0].append(np.square(reading.flat(x)).sum((0, 2), dtype=np.float64)[None])
        seen: dict[Leaf, list[tuple[Reading, Activation]]] = {}
        for reading, kept in zip(readings, found, strict=True):
            for pieces in kept:
                rows = np.concatenate(pieces)
                for leaf in reading.members:
                    seen.setdefault(leaf, []).append((reading, rows))
        reduced = readings.reduced("first")
        for leaf, places in seen.items():
            reduced.take(readings.numbers(leaf), greedy(np.sum([_products(*place, leaf) for place in places], axis=0)))
        return readings.scores(reduced)


def _products(reading: Reading, rows: Activation, leaf: Leaf) -> Products:
    """Products of the contributions of a group's positions, relative to the energy of what all positions give."""
    own = rows[:, reading.members[leaf]].sum(2, dtype=np.float64)
    if not reading.layers:
        return np.diag(own.sum(0) / (rows.sum(dtype=np.float64) or 1.0))
    energy = np.square(rows.sum(1, dtype=np.float64)).sum()
    products: Products = own.T @ own / (energy or 1.0)
    return products


def _contributions(
    evidence: Evidence, layer: Layer, x: Activation, y: Activation, quota: int, generator: np.random.Generator
) -> Activation:
    """What each input position adds to sampled results, ``(rows, positions)``."""
    matrix = layer_matrix(evidence, layer).astype(np.float32)
    groups, outputs, _ = matrix.shape
    count = layer.form.count(y)
    inputs = int(layer.inputs.size)  # type: ignore[arg-type]
    if count * groups * outputs <= quota:
        rows = layer.form.rows(x, y, np.arange(count))
        each = np.einsum("ngf,gof->ngof", rows, matrix).reshape(count, groups, outputs, inputs // groups, -1).sum(-1)
        apart = np.zeros((count, groups, outputs, groups, inputs // groups), np.float32)
        same = np.arange(groups)
        apart[:, same, :, same] = each.swapaxes(0, 1)
        return apart.reshape(-1, inputs)
    index = np.sort(generator.choice(count, min(quota, count), replace=False))
    rows = layer.form.rows(x, y, index)
    signs = generator.integers(0, 2, (groups, len(index), outputs)).astype(np.float32) * 2 - 1
    mixed = np.matmul(signs, matrix)  # (groups, rows, features)
    own = rows * mixed.swapaxes(0, 1)
    total: Activation = own.reshape(len(index), inputs, -1).sum(-1)
    return total


def greedy(products: Products) -> Numbers:
    """The cost of the removed set when each position goes; ``products[j, k]`` is what removing both adds.

    >>> greedy(np.array([[4.0, -4.0, 0.0], [-4.0, 4.0, 0.0], [0.0, 0.0, 1.0]])).round(6).tolist()
    [5.0, 5.0, 1.0]
    """
    count = len(products)
    scores = np.zeros(count)
    steps = np.diag(products).astype(np.float64).copy()
    cost = highest = 0.0
    for _ in range(count):
        best = int(np.argmin(steps))
        cost += float(steps[best])
        highest = max(highest * (1 + _RAISE) + np.finfo(np.float64).tiny, cost)
        scores[best] = highest
        steps += 2 * products[best]
        steps[best] = np.inf
    return scores


register("thinet", lambda seed: ThiNet(seed))
