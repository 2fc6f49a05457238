"""OBD: a position matters as much as the loss grows, to second order, when its weights become zero.

``s[k] = reduce over slices W of the group of sum h W[k]^2 / 2``, where the diagonal of the Hessian is that of the
Fisher information, ``h = E_samples (dL_n/dw)^2`` (LeCun et al. 1990, Optimal Brain Damage, NIPS 2; with the Fisher
information as in Theis et al. 2018, https://arxiv.org/abs/1801.05787). Needs labels and gradients (PyTorch), one run
backwards for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.reduction import Reduction
from graphprune.score.slices import GRADIENTS, Slices

__all__ = ["Obd"]


@dataclass(frozen=True, slots=True)
class Obd:
    """Second order, by the diagonal of the Fisher information."""

    reduction: Reduction = "mean"
    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``obd``."""
        return "obd"

    def score(self, evidence: Evidence) -> Scores:
        """Squares of the gradients of single samples, added up."""
        weights = evidence.gradients.parameters
        slices = Slices(evidence.structure, weights)
        fisher = {name: weights[name] * 0 for name in slices.names}
        samples = 0
        for sample in evidence.gradients.samples():
            samples += 1
            for name, total in fisher.items():
                total += sample[name].square()
        half = {name: total * weights[name].square() / (2 * samples) for name, total in fisher.items()}
        return slices.scores(half, self.reduction)


register("obd", lambda _: Obd())
