"""SNIP: a weight matters as much as the loss depends on whether it is there, at whatever point training is.

``s[k] = reduce over slices W of the group of sum |W[k] dL/dW[k]|``, L being the mean loss of all inputs (Lee et al.
2019, https://arxiv.org/abs/1810.02340). Unlike ``taylor`` it lets batches cancel before it takes sizes. Needs labels
and gradients (PyTorch).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.reduction import Reduction
from graphprune.score.slices import GRADIENTS, Slices

__all__ = ["Snip"]


@dataclass(frozen=True, slots=True)
class Snip:
    """Sensitivity of the loss to connections."""

    reduction: Reduction = "mean"
    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``snip``."""
        return "snip"

    def score(self, evidence: Evidence) -> Scores:
        """One gradient over all batches."""
        weights = evidence.gradients.parameters
        slices = Slices(evidence.structure, weights)
        gradient = evidence.gradients.mean()
        return slices.scores({name: (weights[name] * gradient[name]).abs() for name in slices.names}, self.reduction)


register("snip", lambda _: Snip())
