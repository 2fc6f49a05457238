"""Walks through a slim program and its dense original together, and gives each layer a new weight on the way.

Layers come in reading order, each on what the layers before it, already changed, now give it. A weight that several
calls share is chosen for all of them at once, after the others, from runs of its own. A change is kept only where it
brings a layer nearer to its target on batches that it was not computed from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from graphprune.calibration.observe import Calibration
from graphprune.calibration.steps import Feed, Stop, Values, steps
from graphprune.compensation.fitting import Fit, Fitting, Rows, joined
from graphprune.compensation.judge import Judge, put
from graphprune.compensation.pairs import Pair, pairs, restricted, top_nodes
from graphprune.errors import ModelError
from graphprune.forms import Array
from graphprune.frontends.program import Host, program_of
from graphprune.frontends.weight_access import get_weight
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Method", "Options", "Outcome", "compensate"]

Method: TypeAlias = Literal["least-squares", "bias"]

RIDGES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Multiples of the mean variance of the features that are tried, until one leaves more than the one before."""

ROUNDS = 4
"""How often a fit is repeated where an activation bounds what counts."""

MOST_FEATURES = 6144
"""Features above which only the bias is chosen anew: the covariance would take more than 300 MB."""

LARGE = 2048
"""Features above which only the ridges that serve most layers are tried."""

FLOOR = 1e-9
"""Below this share of what is wanted nothing is missing."""

MOST = 1e12
"""Multiplications at most for the second moments of one layer."""


@dataclass(frozen=True, slots=True)
class Options:
    """``method``, how many ``rows`` of a layer are looked at, which share of the batches is held out, the seed, and
    whether sums with a residual stream are restored rather than single results. ``classes`` judges outputs that score
    classes by their distributions, which says little on inputs that were made up."""

    method: Method = "least-squares"
    rows: int = 32768
    holdout: float = 0.2
    residual: bool = True
    classes: bool = True
    seed: int = 0


@dataclass
class Outcome:
    """How many layers were changed, left since nothing was missing, and refused; how far the outputs on the batches
    held out were from the dense ones without, and are now; the share missing by layer."""

    changed: int = 0
    whole: int = 0
    refused: int = 0
    without: float = 0.0
    distance: float = 0.0
    missing: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By node: what is missing of the result's variance without and with the change, on held-out batches."""


def compensate(
    dense: Host,
    structure: Structure,
    selection: Selection,
    slim: Host,
    feeds: Sequence[Feed],
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Change the weights of ``slim`` in place so that its layers give what those of ``dense`` give.

    ``structure`` and ``selection`` say how ``slim`` was cut out of ``dense``.
    """
    return _Walk(dense, structure, selection, slim, feeds, options or Options(), progress).run()


class _Walk:
    def __init__(
        self,
        dense: Host,
        structure: Structure,
        selection: Selection,
        slim: Host,
        feeds: Sequence[Feed],
        options: Options,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.dense, self.slim, self.feeds, self.options = dense, slim, feeds, options
        self.structure, self.selection = structure, selection
        self.progress = progress or (lambda text: None)
        self.generator = np.random.default_rng(options.seed)
        self.held = _held_out(len(feeds), options.holdout)
        self.outcome = Outcome()
        self.old: dict[str, Array] = {}
        self.last: Mapping[str, Array] = {}
        self.problems = pairs(structure, program_of(slim).read(), slim, top_nodes(slim))

    def run(self) -> Outcome:
        """Change all layers."""
        alone = [problem[0] for problem in self.problems if len(problem) == 1]
        shared = [problem for problem in self.problems if len(problem) > 1]
        count = len(self.problems)
        judge = Judge(
            self.dense, [self.feeds[n] for n in sorted(self.held)] or self.feeds, classes=self.options.classes
        )
        distance = self.outcome.without = judge.distance(self.slim)
        for number, (pair, dense, slim) in enumerate(self._walked(alone), 1):
            self.progress(f"compensate: layer {number} of {count}")
            self._improve([pair], [(dense, slim)])
        distance = self._judged(judge, distance, self.old, self.outcome.changed)
        for number, problem in enumerate(shared, len(alone) + 1):
            self.progress(f"compensate: layer {number} of {count}")
            before, self.last = self.outcome.changed, {}
            self._improve(problem, self._runs(problem))
            distance = self._judged(judge, distance, self.last, self.outcome.changed - before)
        self.outcome.distance = distance
        return self.outcome

    def _judged(self, judge: Judge, before: float, old: Mapping[str, Array], changed: int) -> float:
        """How far the outputs are from the dense ones now; changes that did not bring them nearer are taken back."""
        if not changed:
            return before
        after = judge.distance(self.slim)
        if after < before or math.isinf(before):  # outputs that cannot be compared judge nothing
            return after
        put(self.slim, old)
        self.outcome.changed -= changed
        self.outcome.refused += changed
        return before

    # -- values -------------------------------------------------------------------------------------------------------

    def _walked(self, alone: Sequence[Pair]) -> Iterator[tuple[Pair, list[Values], list[Values]]]:
        """Each pair with the values of both programs for every batch; the slim ones as they are by then."""
        before = [Stop(pair.slim.node, _names(pair.slim.x, self._addend(pair))) for pair in alone]
        after = [
            Stop(pair.dense.adder or pair.dense.node, _names(pair.dense.y, self._addend(pair)), after=True)
            for pair in alone
        ]
        yield from zip(alone, steps(self.dense, self.feeds, after), steps(self.slim, self.feeds, before), strict=True)

    def _runs(self, problem: Sequence[Pair]) -> list[tuple[list[Values], list[Values]]]:
        """The values of calls that share a weight, from one run of each program."""
        wanted = [pair.dense.y for pair in problem]
        given = [pair.slim.x for pair in problem]
        dense = list(Calibration(self.dense, self.feeds).observe(wanted))
        slim = list(Calibration(self.slim, self.feeds).observe(given))
        return [
            ([{y: batch[y]} for batch in dense], [{x: batch[x]} for batch in slim])
            for y, x in zip(wanted, given, strict=True)
        ]

    def _addend(self, pair: Pair) -> str | None:
        return pair.addend if self.options.residual else None

    # -- one weight ---------------------------------------------------------------------------------------------------

    def _improve(self, problem: Sequence[Pair], values: Sequence[tuple[list[Values], list[Values]]]) -> None:
        first = problem[0]
        weight = get_weight(self.slim, first.slim.weight)
        matrix = first.slim.form.matrix(weight.astype(np.float64))
        bias = all(pair.bias is not None for pair in problem)
        pooled = len(problem) > 1 and len({pair.bias for pair in problem}) == 1
        most = self._most(matrix.shape) // len(problem)
        calls: list[Rows] = []
        counts: list[int] = []
        for pair, (dense, slim) in zip(problem, values, strict=True):
            offset = calls[0].offset if pooled and calls else None
            own, count = self._rows(pair, dense, slim, len(problem) == 1, offset, most)
            calls.append(own)
            counts.append(count)
        if pooled:
            parts = [[own.part(side) for own, side in zip(calls, sides, strict=True)] for sides in _sides(counts)]
            calls, counts, problem = [joined([*parts[0], *parts[1]])], [sum(counts)], problem[:1]
        seen, unseen = ([own.part(side) for own, side in zip(calls, sides, strict=True)] for sides in _sides(counts))
        unseen = [rows if rows.count else own for rows, own in zip(unseen, calls, strict=True)]
        moved = [np.einsum("gof,gf->go", matrix, rows.offset) for rows in calls]
        start = Fit(matrix, tuple(self._constant(p, matrix) + m for p, m in zip(problem, moved, strict=True)))
        missing, wanted = start.loss(unseen), sum(rows.variation() for rows in unseen)
        if missing <= FLOOR * wanted:
            self.outcome.whole += 1
            return
        fit, left = self._best(calls, seen, unseen, start, bias)
        self.outcome.missing[first.slim.node] = (missing / max(wanted, 1e-30), left / max(wanted, 1e-30))
        new = {first.slim.weight: first.slim.form.weight(fit.matrix, weight)}
        for pair, rows, constant in zip(problem if bias else (), calls, fit.constants, strict=False):
            assert pair.bias is not None
            old = get_weight(self.slim, pair.bias)
            absolute = constant - np.einsum("gof,gf->go", fit.matrix, rows.offset)
            sign = 1.0 if pair.slim.bias is not None else -1.0
            new[pair.bias] = old + sign * (absolute - self._constant(pair, matrix)).reshape(old.shape)
        if left < missing and self._put(new):  # what is no number is not less
            self.outcome.changed += 1
        else:
            self.outcome.refused += 1

    def _put(self, weights: Mapping[str, Array]) -> bool:
        """Replace weights, and remember what was there; False, and nothing done, where their type cannot hold them."""
        try:
            old = put(self.slim, weights)
        except ModelError:
            return False
        self.last = old
        for name, array in old.items():
            self.old.setdefault(name, array)
        return True

    def _constant(self, pair: Pair, matrix: Array) -> Array:
        """What a layer adds to its product, ``(groups, outputs)``."""
        shape = matrix.shape[:2]
        return np.zeros(shape) if pair.slim.bias is None else get_weight(self.slim, pair.slim.bias).reshape(shape)

    def _best(
        self, every: Sequence[Rows], seen: Sequence[Rows], unseen: Sequence[Rows], start: Fit, bias: bool
    ) -> tuple[Fit, float]:
        """The fit that leaves the least on the rows held out, then computed from all rows."""
        wide = start.matrix.shape[-1] > MOST_FEATURES
        fitting = Fitting(seen, start, bias, covariance=self.options.method != "bias" and not wide)
        if wide or self.options.method == "bias":
            if not bias:
                return start, np.inf
            return Fitting(every, start, bias, covariance=False).shifted(), fitting.shifted().loss(unseen)
        found: list[tuple[float, float]] = []
        for ridge in RIDGES if fitting.features <= LARGE else RIDGES[1:3]:
            found.append((fitting.fit(ridge).loss(unseen), ridge))
            if len(found) > 1 and found[-1][0] > found[-2][0]:
                break
        left, ridge = min(found)
        rounds = ROUNDS if any(rows.bounds is not None for rows in seen) else 1
        if rounds > 1:
            left = fitting.fit(ridge, rounds).loss(unseen)
        del fitting
        return Fitting(every, start, bias).fit(ridge, rounds), left

    def _most(self, shape: tuple[int, ...]) -> int:
        """How many rows of a weight are looked at."""
        groups, _, features = shape
        return min(self.options.rows, max(3 * features, int(MOST / (groups * features * features))))

    def _rows(
        self, pair: Pair, dense: list[Values], slim: list[Values], single: bool, offset: Array | None, most: int
    ) -> tuple[Rows, int]:
        """The rows of all batches, those held out last, and how many come before these."""
        form = pair.slim.form
        addend = self._addend(pair) if single else None
        bounds = pair.bounds if addend is not None else pair.plain_bounds
        parts: list[Rows] = []
        for wanted, given in zip(dense, slim, strict=True):
            x, y = given[pair.slim.x], self._target(pair, wanted, given, addend)
            count = form.count(y)
            some = min(count, max(1, most // len(slim)))
            index = np.sort(self.generator.choice(count, some, replace=False)) if some < count else np.arange(count)
            rows = _by_group(form.rows(x, y, index))
            if offset is None:  # without a bias that can take it up, rows count as they are
                offset = rows.mean(1) if pair.bias is not None else np.zeros((len(rows), rows.shape[2]), np.float32)
            added = None if bounds is None or addend is None else _by_group(form.targets(given[addend], index))
            rows = np.subtract(rows, offset[:, None], dtype=np.float32)
            parts.append(Rows(rows, _by_group(form.targets(y, index)), offset, added, bounds))
        if len(parts) == 1:  # every fifth row is held out
            out = np.arange(parts[0].count) % 5 == 4
            order = np.concatenate([np.flatnonzero(~out), np.flatnonzero(out)])
            return parts[0].part(order), int((~out).sum())
        rest = [own for number, own in enumerate(parts) if number not in self.held]
        count = sum(own.count for own in rest)
        return joined([*rest, *(own for number, own in enumerate(parts) if number in self.held)]), count

    def _target(self, pair: Pair, dense: Values, slim: Values, addend: str | None) -> Array:
        """What the layer is to give: the dense result, and what is missing in the stream that it is added to."""
        axes = self.structure.tensors[pair.dense.y] or ()
        target = restricted(dense[pair.dense.y], axes, self.selection)
        if addend is None:
            return target
        stream = restricted(dense[addend], self.structure.tensors[addend] or (), self.selection) - slim[addend]
        if pair.norm is None:
            return np.asarray(target + stream)
        gain = pair.norm.gain
        usable = np.abs(gain) > 1e-2 * np.abs(gain).max(initial=0.0)
        factor = np.where(usable, 1 / np.where(usable, gain, 1.0), 0.0)
        shape = [-1 if dim == pair.slim.y_dim else 1 for dim in range(target.ndim)]
        return np.asarray(target + stream * factor.reshape(shape), np.float32)


def _sides(counts: Sequence[int]) -> tuple[list[slice], list[slice]]:
    """Where the rows to compute from and those held out lie."""
    return [slice(0, count) for count in counts], [slice(count, None) for count in counts]


def _by_group(rows: Array) -> Array:
    """Rows of each group together."""
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def _names(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)


def _held_out(count: int, share: float) -> frozenset[int]:
    """The batches that nothing is computed from: spread evenly, at least one of several."""
    if count < 2 or share <= 0:
        return frozenset()
    number = min(count - 1, max(1, round(share * count)))
    return frozenset(int((k + 0.5) * count / number) for k in range(number))
