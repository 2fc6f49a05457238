r"""CHIP: a position matters as much as its feature map is independent of the others.

``s[k] = ||A||_* - ||A without row k||_*``, the mean over samples, where ``A`` holds the maps of all positions as rows
and ``||.||_*`` is the sum of the singular values (Sui et al. 2021, https://arxiv.org/abs/2110.13981). Needs calibration
inputs; ``samples`` samples, evenly spaced over all batches, are looked at.

A nuclear norm for each position would cost ``O(n^4)``. With ``A = U diag(s) V^T``, setting the rows of position ``k``
to zero turns ``A^T A`` into ``A^T A - A_k^T A_k``, and from ``sqrt(x) = 2/pi int_0^inf x / (x + u^2) du`` and the
matrix determinant lemma follows, exactly,

.. math:: s_k = -\frac{1}{\pi} \int_0^\infty \log\Bigl(1 - \sum_i U_{ki}^2 \frac{s_i^2}{s_i^2 + u^2}\Bigr) du .

So one decomposition of the smaller Gram matrix of a sample and one matrix product give all positions. The integral is a
trapezoidal sum in ``log u``, which converges exponentially: the error is about 1e-7 of the largest singular value, that
of the roots of eigenvalues in float64.

The row of a position is all its members over all places: of a head its output, of a channel behind a flatten its map.
Where there is one number a sample, the samples of a batch are the places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.positions import Indices, Numbers
from graphprune.score.readings import CALIBRATION, Activation, Reading, Readings, spaced
from graphprune.score.reduction import Reduction

__all__ = ["Chip", "independence"]

_NODES = np.arange(-28.0, 28.0, 0.4)
"""Nodes of the quadrature: logarithms of u relative to the largest singular value."""
_STEP = 0.4


@dataclass(frozen=True, slots=True)
class Chip:
    """How much the nuclear norm of all feature maps loses with a position's own."""

    samples: int = 32
    reduction: Reduction = "mean"
    name: str = "chip"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs."""
        readings = Readings(evidence)
        sums = [{leaf: np.zeros(len(index)) for leaf, index in reading.members.items()} for reading in readings]
        counts = [0] * len(sums)
        for batch in readings.values():
            for number, (reading, values) in enumerate(batch):
                flat = reading.flat(values)
                flat = flat[spaced(len(flat), self.samples, len(readings.calibration))]
                if reading.plain and flat.shape[2] == 1:
                    flat = flat.transpose(2, 1, 0)
                counts[number] += len(flat)
                for sample in flat:
                    for leaf, own in _scores(sample, reading):
                        sums[number][leaf] += own
        reduced = readings.reduced(self.reduction)
        for total, count in zip(sums, counts, strict=True):
            for leaf, own in total.items():
                reduced.take(readings.numbers(leaf), own / max(count, 1))
        return readings.scores(reduced)


def _scores(sample: Activation, reading: Reading) -> list[tuple[Leaf, Numbers]]:
    """The independence of all positions of each group in one sample ``(indices, places)``."""
    if reading.plain:
        every = independence(sample)
        return [(leaf, every[index[:, 0]]) for leaf, index in reading.members.items()]
    return [(leaf, independence(_rows(sample, index))) for leaf, index in reading.members.items()]


def _rows(sample: Activation, index: Indices) -> Activation:
    rows: Activation = sample[index].reshape(len(index), -1)
    return rows


def independence(matrix: npt.NDArray[np.floating]) -> Numbers:
    """By how much the nuclear norm of a matrix falls where one row is set to zero, for each row.

    >>> independence(np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])).round(6).tolist()
    [3.0, 2.0, 0.0]
    """
    wide = matrix.astype(np.float64)
    rows, columns = wide.shape
    if rows <= columns:
        squares, vectors = np.linalg.eigh(wide @ wide.T)
        weights = vectors**2
    else:
        squares, right = np.linalg.eigh(wide.T @ wide)
        weights = (wide @ right) ** 2
    largest = squares.max(initial=0.0)
    if largest <= 0:
        return np.zeros(rows)
    large = squares > 4 * min(rows, columns) * np.finfo(np.float64).eps * largest  # what is below is rounding
    squares, weights = squares[large], weights[:, large]
    if rows > columns:
        weights = weights / squares
    u = np.exp(_NODES) * np.sqrt(largest)
    shares = squares[:, None] / (squares[:, None] + u**2)
    # 1 - sum(U^2 share) loses all digits where the sum is near 1, at small u, and its logarithm does where it is near 0
    inside = np.maximum(1 - weights.sum(1), 0)[:, None] + weights @ (u**2 / (squares[:, None] + u**2))
    small = np.log(np.maximum(inside, np.finfo(np.float64).tiny))
    logs = np.where(_NODES < 0, small, np.log1p(-np.minimum(weights @ shares, 0.9)))
    lost: Numbers = np.maximum(-(logs @ u) * (_STEP / np.pi), 0)
    return lost


register("chip", lambda _: Chip())
