"""Scores and a budget become a selection: which positions of each group are kept.

The positions of a group are taken out lowest score first, in *blocks*: single positions, or as many as bring the width
to the next multiple of ``round_to``. All blocks of all groups form one ranking, and the budget says where it is cut.

- Scope ``local`` ranks a block by the share of its group that is gone with it, so every group loses the same share.
  It is what a ratio means by default: no layer becomes the bottleneck of the rest.
- With measured sensitivity ``curves`` nothing is ranked across groups: how much of each goes is searched for, so that
  the sum of the measured losses is least within the budget (:mod:`graphprune.allocate`); scores order the positions of
  a group only. Groups that were not measured, and more of a group than was, stay.
- With the normaliser ``losses`` it is the sum of the scores that is least, and with curves beside it both sums
  together, each relative to what groups lose on average by half. A measured loss says what the network makes of a
  layer's error, but of one cut layer at a time and before it is compensated; the scores know of that, but of one layer
  only. (ResNet-20 with compensation at half its MACs: 75.3 % by scores, 73.9 % by curves, 75.7 % by both.)
- With a ``latency`` as target how much of each goes is searched for in the same way: the sum of the scores that are
  lost is to be least within the latency that tables predict.
- Scope ``global`` ranks by the blocks' mean scores, normalised by group, so groups of little worth lose more. It is the
  default for targets: at the same MACs far more of a network's accuracy is left (ResNet-56 on CIFAR-10 at 85 %: 99.8 %
  of the training images against 55.9 %).

A cost target is met on exact counts: the shortest cut of the ranking at or below it is found by bisection, then the
most valuable blocks are put back while the cost stays at or below it (for a target of the peak, where most groups have
no part in it, from every group). Where the ranking itself decides how thin a group
gets (scope ``global``, or a target) each keeps at least 5 % of its positions, since a layer of one channel breaks the
network long before the others are used up; a ratio under scope ``local`` is taken at its word.
Parts of one original axis (equal ``pool``) count as one group. No tensor ever runs empty. Equal input gives equal
output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.allocate import allocate
from graphprune.axes import Leaf
from graphprune.budget import Budget
from graphprune.constraints import Constraints, Scope, candidates, check, lock_text, ratios_of
from graphprune.cost import CostModel, Counts
from graphprune.curves import Curves
from graphprune.errors import TargetError
from graphprune.occupancy import indispensable
from graphprune.pace import Prediction
from graphprune.score.base import Scores
from graphprune.score.normalize import Normalizer, normalize
from graphprune.score.positions import Indices, Numbers, Positions
from graphprune.selection import Selection
from graphprune.spending import Spending, meets
from graphprune.structure import Group, Structure
from graphprune.text import scaled
from graphprune.units import Unit

__all__ = ["choose"]

RESTORES = 256  # cost evaluations spent on putting blocks back: each takes well under a millisecond
_EPSILON = 1e-9


def choose(
    structure: Structure,
    scores: Scores,
    budget: Budget,
    constraints: Constraints | None = None,
    cost: CostModel | None = None,
    curves: Curves | None = None,
    prediction: Prediction | None = None,
) -> Selection:
    """The selection that meets ``budget`` with as few positions removed as possible.

    Args:
        structure: what is cut.
        scores: for each group one number a position; the lowest go first.
        budget: with ``ratio``, a group of n positions loses ``floor(ratio * n)`` (scope local), or that share of all
            positions goes (global), as far as the constraints allow; with targets, costs end at or just below them.
        constraints: what else to respect.
        cost: the cost model, for targets; made without sizes of symbolic dimensions if absent.
        curves: what each group loses, as measured; with them the scope is global.
        prediction: the latency by extents, for a target of it. One out of reach is come as near to as can be.

    Raises:
        TargetError: there is nothing to cut, or a target is out of reach.
        UsageError: a pattern matches nothing, a role does not occur, or curves are of another network.
    """
    constraints, cost = constraints or Constraints(), cost or CostModel(structure)
    return _Choice(structure, scores, budget, constraints, cost, curves, prediction).selection()


@dataclass(frozen=True, slots=True)
class _Unit:
    """Positions that are ranked among each other: ``order`` lists those that may go, the first to go first."""

    groups: tuple[Group, ...]
    size: int
    order: Indices
    ratio: float | None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Positions that go together, as columns of a table: block k is ``start[k]`` to ``stop[k]`` of a unit's order."""

    key: Numbers
    unit: Indices
    start: Indices
    stop: Indices

    def __len__(self) -> int:
        return len(self.unit)

    def __getitem__(self, which: slice | Indices | npt.NDArray[np.bool_]) -> _Blocks:
        return _Blocks(self.key[which], self.unit[which], self.start[which], self.stop[which])

    @property
    def ends(self) -> Indices:
        """How many positions the first k blocks hold, for k from 0 to their number."""
        return np.concatenate([[0], np.cumsum(self.stop - self.start, dtype=np.intp)])


class _Choice:
    def __init__(
        self,
        structure: Structure,
        scores: Scores,
        budget: Budget,
        constraints: Constraints,
        cost: CostModel,
        curves: Curves | None,
        prediction: Prediction | None,
    ) -> None:
        self.structure, self.budget, self.constraints, self.cost = structure, budget, constraints, cost
        self.curves = curves
        check(structure, cost, budget, constraints, curves)
        natural: Scope = "local" if budget.ratio is not None and curves is None else "global"
        self.scope = natural if constraints.scope == "auto" else constraints.scope
        self.additive = Normalizer(constraints.normalizer).losses and self.scope == "global"
        self.positions = Positions(structure)
        self.scores = self.positions.join(normalize(scores, constraints.normalizer, cost))
        self.leaves = list(self.positions.first)
        self.spending = Spending(budget, cost, self.leaves, prediction)
        self.sizes = np.array([group.size for group in structure.groups], np.intp)
        self.owner = np.repeat(np.arange(len(self.leaves)), self.sizes)
        self.units = self._units()
        self.order = np.concatenate([np.zeros(0, np.intp), *(unit.order for unit in self.units)])
        self.first = np.cumsum([0, *(len(unit.order) for unit in self.units)], dtype=np.intp)  # of each unit in order
        ratios = np.array([np.nan if unit.ratio is None else unit.ratio for unit in self.units])
        blocks = self._blocks("local")
        self.fixed = blocks[blocks.key <= ratios[blocks.unit] + _EPSILON]
        blocks = self._blocks(self.scope)
        self.ranking = blocks[np.isnan(ratios)[blocks.unit]]

    # -- what may go ----------------------------------------------------------------------------------------------

    def _units(self) -> list[_Unit]:
        stays = indispensable(self.structure, self.positions, self.scores)
        members: dict[tuple[int, float | None, Unit], list[Group]] = {}
        ratios = ratios_of(self.structure, self.constraints)
        for group in candidates(self.structure, self.constraints, self.cost):
            asked = self.constraints.units.get(group.role, Unit())
            ratio = ratios.get(group.leaf, asked.ratio)
            members.setdefault((group.leaf.pool, ratio, asked), []).append(group)
        units: list[_Unit] = []
        for (_, ratio, asked), groups in members.items():
            leaves = [group.leaf for group in groups]
            numbers = np.concatenate([self.positions.numbers(leaf) for leaf in leaves])
            order = numbers[np.lexsort((self.scores[numbers], self._quantiles(leaves)))]
            order = order[~stays[order]]
            least = min(self._least(len(numbers), ratio, asked), len(numbers))
            units.append(_Unit(tuple(groups), len(numbers), order[: len(numbers) - least], ratio))
        return units

    def _quantiles(self, leaves: Sequence[Leaf]) -> Numbers:
        """For scope local, how far up each position stands in its own leaf: parts of one axis lose equal shares."""
        values = [self.scores[self.positions.range(leaf)] for leaf in leaves]
        if self.scope == "global":
            return np.zeros(sum(map(len, values)))
        return np.concatenate([(np.argsort(np.argsort(own, kind="stable")) + 0.5) / len(own) for own in values])

    def _least(self, size: int, ratio: float | None, asked: Unit) -> int:
        ranked = ratio is None and (self.scope == "global" or self.budget.ratio is None)
        most = min(asked.max_ratio, self.constraints.max_ratio) if ranked else asked.max_ratio
        bound = math.ceil(size * (1 - most) - _EPSILON)
        return max(self.constraints.min_width, asked.min, bound, 1)

    # -- ranking --------------------------------------------------------------------------------------------------

    def _blocks(self, scope: Scope) -> _Blocks:
        """All blocks, the first to go first; those of one unit in its order."""
        columns: list[tuple[Numbers, Indices, Indices, Indices]] = []
        for number, unit in enumerate(self.units):
            borders = self._borders(unit)
            starts, stops = borders[:-1], borders[1:]
            if scope == "local":
                keys = (stops - (stops - starts - 1) / 2) / unit.size
            else:
                sums = np.concatenate([[0.0], np.cumsum(self.scores[unit.order])])
                keys = np.maximum.accumulate((sums[stops] - sums[starts]) / (stops - starts))
            columns.append((keys, np.full(len(keys), number), starts, stops))
        blocks = _Blocks(*map(np.concatenate, zip(*columns, strict=True)))
        return blocks[np.lexsort((blocks.start, blocks.unit, blocks.key))]

    def _borders(self, unit: _Unit) -> Indices:
        multiples = self.constraints.multiples
        step = max(multiples.get(group.leaf, self.constraints.round_to) for group in unit.groups)
        if step == 1 or unit.size <= step:
            return np.arange(len(unit.order) + 1)
        widths = np.arange(unit.size // step, 0, -1) * step
        removed = unit.size - widths
        removed = removed[(removed > 0) & (removed <= len(unit.order))]
        return np.concatenate([[0], removed]).astype(np.intp)

    # -- cutting the ranking --------------------------------------------------------------------------------------

    def selection(self) -> Selection:
        """What is kept."""
        if self.curves is not None or self.additive or self.budget.latency is not None:
            chosen = self._by_losses(*self._losses())
        elif self.budget.ratio is not None:
            chosen = self.ranking[: self._by_ratio(self.budget.ratio)]
        else:
            chosen = self._by_cost()
        kept = np.ones(self.positions.total, np.bool_)
        kept[self._numbers(self.fixed)] = False
        kept[self._numbers(chosen)] = False
        masks = {leaf: kept[self.positions.range(leaf)] for leaf in self.leaves}
        return Selection(self.structure.space, {leaf: mask for leaf, mask in masks.items() if not mask.all()})

    def _numbers(self, blocks: _Blocks) -> Indices:
        """The positions of blocks, one block after the other."""
        ends = blocks.ends
        starts = self.first[blocks.unit] + blocks.start - ends[:-1]
        places: Indices = np.repeat(starts, np.diff(ends)) + np.arange(int(ends[-1]))
        return self.order[places]

    def _by_ratio(self, ratio: float) -> int:
        """Where the ranking is cut so that the number of removed positions comes nearest to what ``ratio`` asks."""
        free = [unit for unit in self.units if unit.ratio is None]
        if self.scope == "local":
            wanted = sum(min(math.floor(unit.size * ratio + _EPSILON), len(unit.order)) for unit in free)
        else:
            wanted = math.floor(sum(unit.size for unit in free) * ratio + _EPSILON)
        return int(np.argmin(np.abs(self.ranking.ends - wanted)))

    def _by_cost(self) -> _Blocks:
        limits = self.spending.limits
        start = self._widths(self.fixed)
        cuts = self.owner[self._numbers(self.ranking)]
        ends = self.ranking.ends

        def widths(length: int) -> Indices:
            return start - np.bincount(cuts[: ends[length]], minlength=len(self.leaves))

        low, high = 0, len(self.ranking)
        self._check_reach(self.spending.counts(widths(high)), limits)
        while low < high:
            middle = (low + high) // 2
            if meets(self.spending.counts(widths(middle)), limits):
                high = middle
            else:
                low = middle + 1
        blocks, left = self.ranking[:low], widths(low)
        if self.budget.peak is not None:
            blocks, left = self._released(blocks, left, limits)
        return self._restored(blocks, left, limits)

    def _released(self, blocks: _Blocks, widths: Indices, limits: Mapping[str, int]) -> tuple[_Blocks, Indices]:
        """``blocks`` without those of units that were cut in vain, and the widths that are left.

        A peak is where a few tensors are alive, and a ranking cuts everywhere until those are small enough. Of each
        unit as many blocks are put back as the limits allow, the unit with the most valuable block first.
        """
        kept = np.ones(len(blocks), np.bool_)
        for unit in dict.fromkeys(blocks.unit[::-1].tolist()):
            own = np.flatnonzero(blocks.unit == unit)[::-1]

            def restored(count: int, own: Indices = own, widths: Indices = widths) -> Indices:
                back = self._numbers(blocks[own[:count]])
                return widths + np.bincount(self.owner[back], minlength=len(self.leaves))

            low, high = 0, len(own)
            while low < high:
                middle = (low + high + 1) // 2
                if meets(self.spending.counts(restored(middle)), limits):
                    low = middle
                else:
                    high = middle - 1
            kept[own[:low]] = False
            widths = restored(low)
        return blocks[kept], widths

    def _restored(self, blocks: _Blocks, widths: Indices, limits: Mapping[str, int]) -> _Blocks:
        """``blocks`` without those that the limits do not need, the most valuable tried first.

        Only the last block taken from a unit can be put back; where it is needed the unit is left as it is.
        """
        kept = np.ones(len(blocks), np.bool_)
        closed: set[int] = set()
        for index in range(len(blocks) - 1, max(-1, len(blocks) - 1 - RESTORES), -1):
            unit = int(blocks.unit[index])
            if unit in closed:
                continue
            own = self._numbers(blocks[index : index + 1])
            trial = widths + np.bincount(self.owner[own], minlength=len(self.leaves))
            if meets(self.spending.counts(trial), limits):
                widths = trial
                kept[index] = False
            else:
                closed.add(unit)
        return blocks[kept]

    def _losses(self) -> tuple[list[Indices], list[Numbers]]:
        """Where each free unit can be cut, and what is lost there: as measured, as scored, or both."""
        free = self._free()
        borders = [self._borders(unit) for unit in free]
        if self.curves is not None:
            curves = [self.curves.of(unit.groups) for unit in free]
            ends = [0.0 if curve is None else max(curve.removed) for curve in curves]
            borders = [
                own[own / unit.size <= end + _EPSILON] for unit, own, end in zip(free, borders, ends, strict=True)
            ]
            measured = [
                np.zeros(len(own)) if curve is None else curve.at(own / unit.size)
                for unit, own, curve in zip(free, borders, curves, strict=True)
            ]
            if not self.additive:
                return borders, measured
        scored = [
            np.concatenate([[0.0], np.cumsum(np.maximum(self.scores[unit.order], 0.0))])[own]
            for unit, own in zip(free, borders, strict=True)
        ]
        if self.curves is None:
            return borders, scored
        pairs = zip(_relative(measured), _relative(scored), strict=True)
        return borders, [first + second for first, second in pairs]

    def _free(self) -> list[_Unit]:
        """The units that no ratio of their own decides on."""
        return [unit for unit in self.units if unit.ratio is None]

    def _by_losses(self, borders: Sequence[Indices], losses: Sequence[Numbers]) -> _Blocks:
        """The allocation of least loss that meets the budget; ``losses`` are those at ``borders`` of the free units."""
        units = [index for index, unit in enumerate(self.units) if unit.ratio is None]

        def blocks(counts: Sequence[int]) -> _Blocks:
            stops = np.array([own[count] for own, count in zip(borders, counts, strict=True)], np.intp)
            found = _Blocks(np.zeros(len(stops)), np.array(units, np.intp), np.zeros(len(stops), np.intp), stops)
            return found[stops > 0]

        start = self._widths(self.fixed)

        def widths(counts: Sequence[int]) -> Indices:
            gone = self.owner[self._numbers(blocks(counts))]
            return start - np.bincount(gone, minlength=len(self.leaves))

        free = sum(self.units[index].size for index in units)
        spending = self.spending.of_positions(int(start.sum()), free)
        spending.come_near(widths([len(own) - 1 for own in borders]))
        counts = allocate(losses, lambda c: spending.meets(widths(c)), lambda c: spending.pressure(widths(c)))
        if counts is None:
            least = widths([len(own) - 1 for own in borders])
            self._check_reach(self.spending.counts(least), self.spending.limits)
            raise TargetError(
                f"ratio {self.budget.ratio:g} is out of reach: the options allow to remove "
                f"{1 - int(least.sum()) / self.positions.total:.3g} of all positions"
                f"{'' if self.curves is None else '; measure higher ratios'}"
            )
        return blocks(counts)

    def _widths(self, blocks: _Blocks) -> Indices:
        return self.sizes - np.bincount(self.owner[self._numbers(blocks)], minlength=len(self.leaves))

    def _check_reach(self, least: Counts, limits: Mapping[str, int]) -> None:
        for name, limit in limits.items():
            reached, total = getattr(least, name), getattr(self.spending.total, name)
            if reached > limit:
                raise TargetError(
                    f"{name} {self.budget.targets[name]} is out of reach: {100 * reached / total:.3g}% "
                    f"({scaled(reached)} of {scaled(total)}) is the least that the structure and the options "
                    f"allow{'' if name == 'peak' else lock_text(self.cost)}"
                )


def _relative(losses: Sequence[Numbers]) -> list[Numbers]:
    """Losses in units of what half the steps of a unit lose on average."""
    half = [own[len(own) // 2] for own in losses]
    mean = float(np.mean(half)) if half else 0.0
    return [own / mean if mean else own for own in losses]
