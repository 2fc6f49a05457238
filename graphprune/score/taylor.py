"""Taylor: a position matters as much as the loss is expected to change, to first order, when it becomes zero.

Three readings of it, all with labels and gradients (PyTorch):

- ``taylor``, on weights (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771; by element as in LLM-Pruner, Ma et
  al. 2023, https://arxiv.org/abs/2305.11627): ``s[k] = reduce over slices W of the group of sum E_batches |W[k]
  dL/dW[k]|``.
- ``taylor-activation`` (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440): ``s[k] = E_samples sum over the
  places of k of |sum over space of A[k] dL/dA[k]|``.
- ``taylor-gate`` (Molchanov et al. 2019): a factor m[k] of 1 stands at every place of k, and ``s[k] = E_batches
  (dL/dm[k])^2``, L being the mean loss of a batch: what the places say is added up before it is squared.

Places of a position are the inputs of layers that read it (:mod:`graphprune.score.gates`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.gates import Gates
from graphprune.score.reduction import Reduction
from graphprune.score.slices import GRADIENTS, Slices

__all__ = ["Taylor", "TaylorActivation", "TaylorGate"]


@dataclass(frozen=True, slots=True)
class Taylor:
    """First order, on weights."""

    reduction: Reduction = "mean"
    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``taylor``."""
        return "taylor"

    def score(self, evidence: Evidence) -> Scores:
        """One run forwards and backwards for each batch."""
        gradients = evidence.gradients
        slices = Slices(evidence.structure, gradients.parameters)
        products = {name: gradients.parameters[name] * 0 for name in slices.names}
        for batch in gradients.weights():
            for name, total in products.items():
                total += (gradients.parameters[name] * batch[name]).abs() / len(gradients)
        return slices.scores(products, self.reduction)


@dataclass(frozen=True, slots=True)
class TaylorActivation:
    """First order, on what enters layers, by the size of what each sample says at each place."""

    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``taylor-activation``."""
        return "taylor-activation"

    def score(self, evidence: Evidence) -> Scores:
        """One run forwards and backwards for each batch."""
        gates = Gates(evidence.structure, evidence.gradients)
        total, samples = np.zeros(gates.positions.total), 0
        for batch in gates.batches():
            for slopes in batch:
                total[slopes.numbers] += np.abs(slopes.values).sum(0)
            samples += len(batch[0].values) if batch else 0
        return gates.positions.split(total / max(samples, 1))


@dataclass(frozen=True, slots=True)
class TaylorGate:
    """First order, on what enters layers, by the square of what all places and all samples of a batch say together."""

    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``taylor-gate``."""
        return "taylor-gate"

    def score(self, evidence: Evidence) -> Scores:
        """One run forwards and backwards for each batch."""
        gates = Gates(evidence.structure, evidence.gradients)
        total = np.zeros(gates.positions.total)
        for batch in gates.batches():
            slope = np.zeros_like(total)
            for slopes in batch:
                slope[slopes.numbers] += slopes.values.mean(0)
            total += slope**2 / len(evidence.gradients)
        return gates.positions.split(total)


register("taylor", lambda _: Taylor())
register("taylor-activation", lambda _: TaylorActivation())
register("taylor-gate", lambda _: TaylorGate())
