"""Scales of normalisations: channels that batch normalisation scales down matter little.

``s[k] = |gamma[k]|`` (network slimming, Liu et al. 2017, https://arxiv.org/abs/1708.06519); of several normalisations
of the same positions, reduced. Batch, instance, layer, group and RMS normalisation count. Needs no data; works best
after training with a penalty on the scales.

Where batch normalisation has been folded into convolutions, as in most ONNX models, scale and filter are one: an axis
that has no scale is judged by the L2 norms of the filters that make it, which is ``|gamma[k]| ||W[k]|| / sigma[k]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.filters import filters
from graphprune.score.norms import norms
from graphprune.score.pools import where_missing
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction
from graphprune.score.scales import scales

__all__ = ["NormScale"]


@dataclass(frozen=True, slots=True)
class NormScale:
    """The scale that a normalisation gives a position, or the norm of the filter that it was folded into."""

    reduction: Reduction = "mean"
    name: str = "bn-scale"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """Filters are read only where scales are missing."""
        positions = Positions(evidence.structure)
        reduced = Reduced(positions, self.reduction)
        for name in scales(evidence.structure):
            for dim, axis in enumerate(evidence.structure.tensors[name] or ()):
                if axis.size != 1 and len(positions.places(axis).number):
                    values = np.abs(evidence.array(name).astype(np.float64))
                    others = tuple(other for other in range(values.ndim) if other != dim)
                    reduced.add(axis, values.sum(others))
        return positions.split(
            where_missing(positions, reduced.result(), reduced.seen, lambda: self._folded(evidence, positions))
        )

    def _folded(self, evidence: Evidence, positions: Positions) -> Numbers:
        reduced = Reduced(positions, self.reduction)
        for layer in filters(evidence.structure):
            if len(positions.places(layer.axis).number):
                rows = layer.rows(evidence)
                reduced.add(layer.axis, np.einsum("ij,ij->i", rows, rows).astype(np.float64))
        values = np.sqrt(reduced.result())
        return where_missing(positions, values, reduced.seen, lambda: np.sqrt(norms(evidence, positions, 2, "mean")))


register("bn-scale", lambda _: NormScale())
