"""What of a budget is spent where so many positions of each group stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphprune.axes import Leaf
from graphprune.budget import Budget
from graphprune.cost import CostModel, Counts, Widths
from graphprune.pace import Prediction
from graphprune.score.positions import Indices

__all__ = ["Spending", "meets"]

_PEAKEDNESS = 16
_EPSILON = 1e-9


class Spending:
    """The costs that ``budget`` limits, as functions of the widths of ``leaves``.

    ``kept`` is how many positions may stay, where the budget is a ratio; ``prediction`` tells the latency.
    """

    def __init__(
        self,
        budget: Budget,
        cost: CostModel,
        leaves: Sequence[Leaf],
        prediction: Prediction | None = None,
        kept: int | None = None,
    ) -> None:
        self.budget, self.cost, self.leaves, self.prediction, self.kept = budget, cost, leaves, prediction, kept
        self.total = self._at({})
        self.limits = budget.limits(self.total)
        self._binding = [name for name, limit in self.limits.items() if getattr(self.total, name) > limit]

    def of_positions(self, whole: int, free: int) -> Spending:
        """The same where a ratio is asked of ``free`` positions out of ``whole``."""
        ratio = self.budget.ratio
        kept = None if ratio is None else whole - math.floor(free * ratio + _EPSILON)
        return Spending(self.budget, self.cost, self.leaves, self.prediction, kept)

    def come_near(self, least: Indices) -> None:
        """Let what is predicted where ``least`` stays be enough of a latency: whether it is, measuring will tell."""
        if "latency" in self.limits:
            self.limits["latency"] = max(self.limits["latency"], self.counts(least).latency or 0)

    def counts(self, widths: Indices) -> Counts:
        """All costs, the peak if it is limited."""
        return self._at(self._named(widths))

    def _at(self, widths: Widths) -> Counts:
        found = self.cost.at(widths, peak=self.budget.peak is not None)
        if self.prediction is None:
            return found
        return replace(found, latency=self.prediction(self.cost.extents(widths)))

    def meets(self, widths: Indices) -> bool:
        """Whether the budget is met."""
        if self.kept is not None:
            return int(widths.sum()) <= self.kept
        if self._only_latency:
            return self._latency(widths) <= self.limits["latency"]
        return meets(self.counts(widths), self.limits)

    def pressure(self, widths: Indices) -> float:
        """The sum of all costs that must fall, each relative to its limit."""
        if self.kept is not None:
            return float(widths.sum()) / max(self.kept, 1)
        if self._only_latency:
            return self._latency(widths) / max(self.limits["latency"], 1)
        counts = self.counts(widths)
        spent = sum(getattr(counts, name) / max(self.limits[name], 1) for name in self._binding if name != "peak")
        if "peak" in self._binding:
            # A position away from the peak, or beside another one as high, saves nothing of it: all high places count.
            live = self.cost.activations.live(self.cost.extents(self._named(widths))) / max(self.limits["peak"], 1)
            spent += float((live**_PEAKEDNESS).sum()) ** (1 / _PEAKEDNESS)
        return float(spent)

    @property
    def _only_latency(self) -> bool:
        """Whether nothing else is limited, so that nothing else needs to be counted."""
        return self.prediction is not None and self.limits.keys() == {"latency"}

    def _latency(self, widths: Indices) -> int:
        assert self.prediction is not None
        return self.prediction(self.cost.extents(self._named(widths)))

    def _named(self, widths: Indices) -> dict[Leaf, int]:
        return dict(zip(self.leaves, widths.tolist(), strict=True))


def meets(counts: Counts, limits: Mapping[str, int]) -> bool:
    """Whether no cost is above its limit."""
    return all(getattr(counts, name) <= limit for name, limit in limits.items())
