"""HRank: a position matters as much as the rank of its feature map.

``s[k] = E[rank(A_k)]`` over samples, where ``A_k`` is a map of height by width (Lin et al. 2020,
https://arxiv.org/abs/2002.10179). Needs calibration inputs; the ranks differ little from batch to batch, so ``samples``
samples, evenly spaced over all batches, are enough.

Where a position has no map, the rank is that of the matrix it has instead: for a head its width by the tokens; for a
unit that has one number a token, or one a sample, the samples of a batch by the tokens. That matrix has mostly full
rank: such groups are told apart little by this criterion, and a program that tells nothing apart is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphprune.axes import Leaf
from graphprune.errors import UsageError
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.positions import Numbers
from graphprune.score.readings import CALIBRATION, Activation, Reading, Readings, spaced
from graphprune.score.reduction import Reduction

__all__ = ["HRank"]


@dataclass(frozen=True, slots=True)
class HRank:
    """The mean rank of a position's feature maps."""

    samples: int = 64
    reduction: Reduction = "mean"
    name: str = "hrank"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One pass over the calibration inputs.

        Raises:
            UsageError: all positions of each group have the same rank.
        """
        readings = Readings(evidence)
        sums = [{leaf: np.zeros(len(index)) for leaf, index in reading.members.items()} for reading in readings]
        counts = [dict.fromkeys(reading.members, 0) for reading in readings]
        for batch in readings.values():
            for total, count, (reading, values) in zip(sums, counts, batch, strict=True):
                chosen = spaced(1 if reading.dim == 0 else len(values), self.samples, len(readings.calibration))
                viewed = reading.view(values)[chosen]
                for leaf in reading.members:
                    maps = _maps(viewed, reading, leaf)
                    ranks = np.linalg.matrix_rank(maps) if maps.size else np.zeros(maps.shape[:2])
                    total[leaf] += ranks.sum(0)
                    count[leaf] += len(maps)
        reduced = readings.reduced(self.reduction)
        for total, count in zip(sums, counts, strict=True):
            for leaf, own in total.items():
                reduced.take(readings.numbers(leaf), own / max(count[leaf], 1))
        scores = readings.scores(reduced)
        seen = {leaf for reading in readings for leaf in reading.members}
        if seen and all(_alike(scores[leaf]) for leaf in seen):
            raise UsageError("criterion 'hrank' finds the same rank everywhere: there are no maps; use l2-activation")
        return scores


def _maps(viewed: Activation, reading: Reading, leaf: Leaf) -> Activation:
    """The matrices of each position of a group, ``(samples, positions, rows, columns)``."""
    index = reading.members[leaf]
    samples, positions, members = len(viewed), *index.shape
    space = viewed.shape[2:]
    own = viewed[:, index.reshape(-1)]
    if members > 1:
        rows, columns = members, math.prod(space)
    else:
        rows, columns = math.prod(space[:-1]), space[-1] if space else 1
    if rows > 1 and columns > 1:
        maps: Activation = own.reshape(samples, positions, rows, columns)
    else:
        maps = own.reshape(samples, positions, rows * columns).swapaxes(0, 1)[None]
    return maps


def _alike(values: Numbers) -> bool:
    return bool(np.ptp(values) == 0)


register("hrank", lambda _: HRank())
