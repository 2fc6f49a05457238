"""GraSP: a weight matters as much as gradients flow because of it.

Without w the squared norm of the gradient g changes by ``-2 w (Hg)`` to first order, so ``s[k] = sum over slices W of
the group of sum W[k] (Hg)[k]``, H being the Hessian of the mean loss: what gradient flow suffers most without is kept
(Wang et al. 2020, https://arxiv.org/abs/2002.07376, who rank ``-w (Hg)`` and remove the highest). Meant for networks
before training; scores may be below zero. Needs labels and gradients (PyTorch).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.slices import GRADIENTS, Slices

__all__ = ["Grasp"]


@dataclass(frozen=True, slots=True)
class Grasp:
    """Preservation of gradient flow."""

    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``grasp``."""
        return "grasp"

    def score(self, evidence: Evidence) -> Scores:
        """One gradient over all batches, then the product of the Hessian with it."""
        weights = evidence.gradients.parameters
        slices = Slices(evidence.structure, weights)
        gradient = evidence.gradients.mean()
        flow = {name: weights[name] * 0 for name in slices.names}
        for product in evidence.gradients.products(lambda _: gradient):
            for name, total in flow.items():
                total += weights[name] * product[name] / len(evidence.gradients)
        return slices.scores(flow, "sum")


register("grasp", lambda _: Grasp())
