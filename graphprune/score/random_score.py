"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.score.base import Evidence, Scores, register

__all__ = ["Random"]


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform numbers, the same for the same seed and structure."""

    seed: int = 0
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """``random``."""
        return "random"

    def score(self, evidence: Evidence) -> Scores:
        """No weight is read."""
        generator = np.random.default_rng(self.seed)
        return {group.leaf: generator.random(group.size) for group in evidence.structure.groups}


register("random", Random)
