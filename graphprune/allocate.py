"""How much of each unit goes, where the loss of every amount is known: least loss within a budget.

A unit loses so many steps, each with a loss of its own, and losses of different units add up. Costs may be anything
that falls with every step: a layer's multiply-accumulates are products of widths, so what a step saves depends on what
else goes. The search is that of a multiple-choice knapsack with prices: on the lower convex hull of each unit's losses,
steps are taken by their loss for what they save, up to the first that meets the budget; what a step saves is then taken
anew at the result, and so on, since in the best allocation loss and saving balance there. The best of these is improved
by giving a step back to one unit and taking from another instead. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["allocate", "hull"]

Numbers: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = list[int]

ROUNDS = 8  # times that prices are taken anew: they have settled after three or four
PARTNERS = 8  # units that an exchange is tried with, on either side
STARTS = 3  # allocations that exchanges begin from
EVALUATIONS = 5000  # times that the budget is looked at for the exchanges of one start
_LEAST_PRICE = 1e-12
_GAIN = 1e-9


def allocate(
    losses: Sequence[Numbers], meets: Callable[[Counts], bool], pressure: Callable[[Counts], float]
) -> Counts | None:
    """For each unit how many steps go; None where no allocation meets the budget.

    Args:
        losses: of each unit the loss after 0, 1, 2, ... steps, beginning with 0 and never falling.
        meets: whether the budget is met where so many steps of each unit are gone.
        pressure: how much is spent then, as one number that says what a step saves of all costs together.
    """
    return _Search(losses, meets, pressure).result()


def hull(losses: Numbers) -> Numbers:
    """The greatest convex function below ``losses`` at 0, 1, 2, ...

    >>> hull(np.array([0.0, 3.0, 4.0, 9.0])).tolist()
    [0.0, 2.0, 4.0, 9.0]
    """
    corners: list[int] = []
    for step, loss in enumerate(losses.tolist()):
        while len(corners) > 1:
            first, second = corners[-2:]
            if (losses[second] - losses[first]) * (step - first) < (loss - losses[first]) * (second - first):
                break
            corners.pop()
        corners.append(step)
    return np.interp(np.arange(len(losses)), corners, losses[corners])


class _Search:
    def __init__(
        self, losses: Sequence[Numbers], meets: Callable[[Counts], bool], pressure: Callable[[Counts], float]
    ) -> None:
        self.losses, self.pressure = losses, pressure
        self._meets = meets
        self._evaluations = 0
        self.most = [len(own) - 1 for own in losses]
        self.unit = np.repeat(np.arange(len(losses)), self.most)
        self.step = np.concatenate([np.zeros(0, np.intp), *(np.arange(most) for most in self.most)])
        self.slope = np.concatenate([np.zeros(0), *(np.diff(hull(own)) for own in losses)])

    def meets(self, counts: Counts) -> bool:
        """Whether the budget is met."""
        self._evaluations += 1
        return self._meets(counts)

    def result(self) -> Counts | None:
        """See :func:`allocate`."""
        if not self.meets(self.most):
            return None
        counts: Counts = [0] * len(self.most)
        if self.meets(counts):
            return counts
        prices = self._prices(counts)
        tried: list[tuple[float, Counts]] = []
        for _ in range(ROUNDS):
            cut = self._cut(prices)
            assert cut is not None
            counts = self._filled(cut, prices)
            if any(counts == other for _, other in tried):
                break
            tried.append((self._loss(counts), counts))
            prices = np.sqrt(prices * self._prices(counts))
        found = [self._exchanged(counts) for _, counts in sorted(tried)[:STARTS]]
        return min(found, key=self._loss)

    def _loss(self, counts: Counts) -> float:
        return float(sum(own[count] for own, count in zip(self.losses, counts, strict=True)))

    def _prices(self, counts: Counts) -> Numbers:
        """What one step of each unit saves, the mean of the next one and the last one."""
        spent = self.pressure(counts)
        prices = np.full(len(counts), _LEAST_PRICE)
        for unit, count in enumerate(counts):
            saved = []
            if count < self.most[unit]:
                saved.append(spent - self.pressure(_changed(counts, unit, 1)))
            if count:
                saved.append(self.pressure(_changed(counts, unit, -1)) - spent)
            if saved:
                prices[unit] = max(_LEAST_PRICE, sum(saved) / len(saved))
        return prices

    def _cut(self, prices: Numbers, fixed: Mapping[int, int] | None = None) -> Counts | None:
        """The shortest beginning of the ranking by loss for what is saved that meets the budget, some units fixed."""
        fixed = fixed or {}
        key = self.slope / prices[self.unit]
        order = self.unit[np.lexsort((self.step, self.unit, key))]
        order = order[~np.isin(order, list(fixed))]

        def counts(length: int) -> Counts:
            found = np.bincount(order[:length], minlength=len(self.most)).tolist()
            return [fixed.get(unit, count) for unit, count in enumerate(found)]

        low, high = 0, len(order)
        if not self.meets(counts(high)):
            return None
        while low < high:
            middle = (low + high) // 2
            if self.meets(counts(middle)):
                high = middle
            else:
                low = middle + 1
        return counts(low)

    def _filled(self, counts: Counts, prices: Numbers, units: Sequence[int] | None = None) -> Counts:
        """As many steps given back as the budget allows, those of the greatest loss for their price first."""
        given = range(len(counts)) if units is None else units
        for unit in sorted(given, key=lambda unit: (-self._relief(counts, unit) / prices[unit], unit)):
            low, high = 0, counts[unit]
            while low < high:
                middle = (low + high + 1) // 2
                if self.meets(_changed(counts, unit, -middle)):
                    low = middle
                else:
                    high = middle - 1
            counts = _changed(counts, unit, -low)
        return counts

    def _relief(self, counts: Counts, unit: int) -> float:
        """How much less is lost where a unit gets its last step back."""
        own, count = self.losses[unit], counts[unit]
        return float(own[count] - own[count - 1]) if count else 0.0

    def _burden(self, counts: Counts, unit: int) -> float:
        own, count = self.losses[unit], counts[unit]
        return float(own[count + 1] - own[count]) if count < self.most[unit] else np.inf

    def _exchanged(self, counts: Counts) -> Counts:
        end = self._evaluations + EVALUATIONS
        while better := next(self._exchanges(counts, end), None):
            counts = self._filled(better, self._prices(better))
        return counts

    def _exchanges(self, counts: Counts, end: int) -> Iterator[Counts]:
        """Allocations of less loss: some steps given back to one unit, as few as needed taken from another; then one
        unit set to some number of steps and all others ranked anew.
        """
        prices = self._prices(counts)
        units = range(len(counts))
        givers = sorted(units, key=lambda unit: (-self._relief(counts, unit) / prices[unit], unit))[:PARTNERS]
        takers = sorted(units, key=lambda unit: (self._burden(counts, unit) / prices[unit], unit))[:PARTNERS]
        before = self._loss(counts)
        for back in givers:
            for amount in _amounts(counts[back]):
                given = _changed(counts, back, -amount)
                for take in takers:
                    if self._evaluations > end:
                        return
                    found = self._paid(given, take) if take != back else None
                    if found is not None and self._loss(found) < before - _GAIN * max(before, 1e-300):
                        yield found
        for unit in units:
            for count in (0, *_amounts(self.most[unit])):
                if self._evaluations > end:
                    return
                cut = self._cut(prices, {unit: count})
                if cut is not None:
                    found = self._filled(cut, prices, [other for other in givers if other != unit])
                    if self._loss(found) < before - _GAIN * max(before, 1e-300):
                        yield found

    def _paid(self, counts: Counts, unit: int) -> Counts | None:
        """The fewest steps taken from a unit that meet the budget."""
        room = self.most[unit] - counts[unit]
        if not self.meets(_changed(counts, unit, room)):
            return None
        low, high = 0, room
        while low < high:
            middle = (low + high) // 2
            if self.meets(_changed(counts, unit, middle)):
                high = middle
            else:
                low = middle + 1
        return _changed(counts, unit, low)


def _amounts(most: int) -> list[int]:
    """Numbers of steps to try: all few, then by halves.

    >>> _amounts(6), _amounts(40)
    ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 10, 20, 40])
    """
    halves = (most >> shift for shift in range(most.bit_length()))
    return sorted({*range(1, min(most, 6) + 1), *halves} - {0})


def _changed(counts: Counts, unit: int, by: int) -> Counts:
    changed = counts.copy()
    changed[unit] += by
    return changed
