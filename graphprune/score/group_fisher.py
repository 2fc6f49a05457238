"""Group Fisher: the Fisher information of one factor for all that is coupled, by the memory that a position costs.

A factor m[k] of 1 stands at every place where a layer reads position k, the same one at all places. ``s[k] = E_samples
(sum over places of dL_n/dm[k])^2 / memory[k]``: half of that square is what the loss grows by, to second order, when
position k becomes zero everywhere, and ``memory[k]`` how many elements it has in the results of all operators (Liu et
al. 2021, https://arxiv.org/abs/2108.00708). Needs labels and gradients (PyTorch).

The division compares groups, so rank them as they are (``normalize="none"``): a normaliser that brings each group to a
scale of its own, as the default does, takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphprune.cost import CostModel
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.gates import Gates
from graphprune.score.normalize import costs
from graphprune.score.slices import GRADIENTS

__all__ = ["GroupFisher"]


@dataclass(frozen=True, slots=True)
class GroupFisher:
    """Fisher information of gates; ``cost`` says what it is divided by."""

    cost: Literal["memory", "macs", "none"] = "memory"
    needs: frozenset[str] = GRADIENTS

    @property
    def name(self) -> str:
        """``group-fisher``."""
        return "group-fisher"

    def score(self, evidence: Evidence) -> Scores:
        """One run forwards and backwards for each batch."""
        gates = Gates(evidence.structure, evidence.gradients)
        total, samples = np.zeros(gates.positions.total), 0
        for batch in gates.batches():
            count = len(batch[0].values) if batch else 0
            slopes = np.zeros((count, gates.positions.total))
            for place in batch:
                slopes[:, place.numbers] += place.values
            total += np.square(slopes).sum(0)
            samples += count
        scores = gates.positions.split(total / max(samples, 1))
        if self.cost == "none":
            return scores
        prices = costs(CostModel(evidence.structure, evidence.gradients.sizes()), self.cost)
        return {leaf: own / prices[leaf] for leaf, own in scores.items()}


register("group-fisher", lambda _: GroupFisher())
