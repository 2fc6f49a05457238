"""Hutchinson: curvature of the loss along a position's weights, from Hessian-vector products with random signs.

``s[k] = reduce over slices W of the group of tr(H_kk) / (2 n) |W[k]|^2``, where n is the number of elements of ``W[k]``
and the trace of their block of the Hessian is estimated by ``sum v (Hv)``, v random signs (Hessian-aware pruning, Yu et
al. 2022, https://arxiv.org/abs/2101.08940). A slice has one curvature, the mean of its diagonal, because the estimate
of single elements is noise. Unlike ``obd`` it holds where the gradient does not say the curvature, for any loss. Needs
labels and gradients (PyTorch); differentiates twice ``probes`` times for each batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.positions import Numbers
from graphprune.score.reduction import Reduction
from graphprune.score.slices import GRADIENTS, SliceOf, Slices, along

__all__ = ["Hutchinson"]


@dataclass(frozen=True, slots=True)
class Hutchinson:
    """Second order, by an estimate of the Hessian's diagonal."""

    probes: int = 4
    reduction: Reduction = "mean"
    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``hutchinson``."""
        return "hutchinson"

    def score(self, evidence: Evidence) -> Scores:
        """Average over probes and batches; curvature below zero, which an estimate or a saddle has, counts as none."""
        gradients = evidence.gradients
        weights = gradients.parameters
        slices = Slices(evidence.structure, weights)
        diagonal = {name: weights[name] * 0 for name in slices.names}
        for batch in gradients.diagonals(self.probes):
            for name, total in diagonal.items():
                total += batch[name] / (len(gradients) * self.probes)

        def numbers(place: SliceOf) -> Numbers:
            curvature = along(diagonal[place.name], place.dim).clip(0)
            count = weights[place.name].numel() / weights[place.name].shape[place.dim]
            return np.asarray(curvature / (2 * count) * along(weights[place.name].square(), place.dim), np.float64)

        return slices.positions.split(slices.reduced(numbers, self.reduction))


register("hutchinson", lambda _: Hutchinson())
