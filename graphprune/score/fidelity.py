"""Output fidelity: a position matters as much as the outputs change without it.

``s[k] = D(f(x), f(x) without k)``, the mean over samples, where ``D`` is the Kullback-Leibler divergence of the class
probabilities, or one minus the cosine of the outputs (the oracle of Molchanov et al. 2017,
https://arxiv.org/abs/1611.06440, without labels). Needs calibration inputs.

``measure`` is ``kl`` for an output that scores classes (otherwise the cosine is taken all the same) or ``cosine``, the
lowest of all outputs (:mod:`graphprune.calibration.fidelity`). A position is taken out by
setting to zero all weights that it holds, which equals removing it where its group is exact.

The cost is bounded: about ``forwards`` runs on the first ``samples`` samples. Where there are more positions, those of
a group that are neighbours by L2 magnitude are taken out together, and share the change by their magnitudes. Weights of
less than floating point stay as they are; a group that has no others is scored by magnitude. A position without which
an output is not finite counts as the most important one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.score.base import Evidence, Scores, register
from graphprune.score.magnitude import Magnitude
from graphprune.score.pools import where_missing
from graphprune.score.positions import Indices, Numbers, Positions
from graphprune.score.readings import CALIBRATION

if TYPE_CHECKING:
    from graphprune.score.ablation import Ablation

__all__ = ["Fidelity", "Measure"]

Measure = Literal["kl", "cosine"]
Array: TypeAlias = npt.NDArray[Any]

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far the outputs move where a position is taken out."""

    measure: Measure = "kl"
    forwards: int = 512
    samples: int = 16
    name: str = "fidelity"
    needs: frozenset[str] = CALIBRATION

    def score(self, evidence: Evidence) -> Scores:
        """One run of the program for each position, or for each few."""
        from graphprune.score.ablation import Ablation  # it runs programs, whose readers need the scores' base

        positions = Positions(evidence.structure)
        ablation = Ablation(evidence, positions, self.samples)
        magnitudes = positions.join(Magnitude(2).score(evidence))
        found, seen = np.zeros(positions.total), ablation.held
        dense = ablation.outputs(np.zeros(0, np.intp))
        bundles = self._bundles(evidence, positions, magnitudes, seen)
        for number, bundle in enumerate(bundles):
            evidence.calibration.tell(f"fidelity: position {number + 1} of {len(bundles)}")
            change = _difference(dense, ablation.outputs(bundle), self.measure, ablation)
            weights = magnitudes[bundle] + _TINY
            found[bundle] = change * weights / weights.sum()
        finite = np.isfinite(found)
        found[~finite] = 2 * found[finite].max(initial=0.0) + 1
        return positions.split(where_missing(positions, found, seen, lambda: magnitudes))

    def _bundles(
        self, evidence: Evidence, positions: Positions, magnitudes: Numbers, seen: npt.NDArray[np.bool_]
    ) -> list[Indices]:
        """Positions that are taken out together: neighbours by magnitude in one group."""
        size = max(1, -(-int(seen.sum()) // max(self.forwards, 1)))
        found: list[Indices] = []
        for group in evidence.structure.groups:
            numbers = positions.numbers(group.leaf)
            numbers = numbers[seen[numbers]]
            order = numbers[np.argsort(magnitudes[numbers], kind="stable")]
            found.extend(order[start : start + size] for start in range(0, len(order), size))
        return found


def _difference(dense: Sequence[Array], other: Sequence[Array], measure: Measure, ablation: Ablation) -> float:
    """How far ``other`` outputs are from ``dense`` ones; infinite where they are not finite."""
    from graphprune.calibration.fidelity import Likeness

    likeness = Likeness(ablation.names, tokens=ablation.tokens)
    likeness.add(dense, other)
    found = likeness.result()
    if any(output.problem for output in found.outputs):
        return float("inf")
    if measure == "kl" and found.kl is not None:
        return float(found.kl)
    return 0.0 if found.cosine is None else float(1 - found.cosine)


register("fidelity", lambda _: Fidelity())
