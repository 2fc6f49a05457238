"""Walks through a slim program and its dense original together, and gives each layer a new weight on the way.

Layers come in reading order, each on what the layers before it, already changed, now give it. A weight that several
calls share is chosen for all of them at once, after the others, from runs of its own. A change is kept only where it
brings a layer nearer to its target on batches that it was not computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from graphprune.calibration.observe import Calibration
from graphprune.calibration.steps import Feed, Stop, Values, steps
from graphprune.compensation.moments import RIDGES, Change, Moments, bias_only, least_squares, loss
from graphprune.compensation.pairs import Pair, pairs, restricted
from graphprune.frontends.program import Host, program_of
from graphprune.frontends.weight_access import get_weight, set_weight
from graphprune.layers import Array
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Method", "Options", "Outcome", "compensate"]

Method: TypeAlias = Literal["least-squares", "bias"]

FLOOR = 1e-9
"""Below this share of what is wanted nothing is missing."""

MOST = 1e12
"""Multiplications at most for the second moments of one layer."""


@dataclass(frozen=True, slots=True)
class Options:
    """``method``, how many ``rows`` of a layer are looked at, which share of the batches is held out, the seed, and
    whether sums with a residual stream are restored rather than single results."""

    method: Method = "least-squares"
    rows: int = 32768
    holdout: float = 0.2
    residual: bool = True
    seed: int = 0


@dataclass
class Outcome:
    """How many layers were changed, left since nothing was missing, and refused; the share missing by layer."""

    changed: int = 0
    whole: int = 0
    refused: int = 0
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
        self.problems = pairs(structure, program_of(slim).read(), slim, _top(slim))

    def run(self) -> Outcome:
        """Change all layers."""
        alone = [problem[0] for problem in self.problems if len(problem) == 1]
        shared = [problem for problem in self.problems if len(problem) > 1]
        count = len(self.problems)
        for number, (pair, dense, slim) in enumerate(self._walked(alone), 1):
            self.progress(f"compensate: layer {number} of {count}")
            self._improve([pair], [(dense, slim)])
        for number, problem in enumerate(shared, len(alone) + 1):
            self.progress(f"compensate: layer {number} of {count}")
            self._improve(problem, self._runs(problem))
        return self.outcome

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
        single = len(problem) == 1
        pooled = not single and len({pair.bias for pair in problem}) == 1
        seen: list[Moments] = []
        unseen: list[Moments] = []
        for pair, (dense, slim) in zip(problem, values, strict=True):
            offset = seen[0].offset if pooled and seen else None
            own, other = self._moments(pair, matrix, dense, slim, single, offset)
            if pooled and seen:
                seen[0], unseen[0] = seen[0].plus(own), unseen[0].plus(other)
            else:
                seen.append(own)
                unseen.append(other)
        bias = all(pair.bias is not None for pair in problem)
        missing, wanted = loss(unseen, None), sum(own.wanted for own in unseen)
        if missing <= FLOOR * wanted:
            self.outcome.whole += 1
            return
        change, left = self._best(seen, unseen, bias)
        self.outcome.missing[first.slim.node] = (missing / max(wanted, 1e-30), left / max(wanted, 1e-30))
        if change is None or left >= missing:
            self.outcome.refused += 1
            return
        self.outcome.changed += 1
        set_weight(self.slim, first.slim.weight, first.slim.form.weight(matrix + change.matrix, weight))
        if change.biases:
            self._shift([problem[0]] if pooled else problem, change.absolute(seen))

    def _shift(self, problem: Sequence[Pair], constants: Sequence[Array]) -> None:
        for pair, constant in zip(problem, constants, strict=True):
            assert pair.bias is not None
            old = get_weight(self.slim, pair.bias)
            sign = 1.0 if pair.slim.bias is not None else -1.0
            set_weight(self.slim, pair.bias, old + sign * constant.reshape(old.shape))

    def _best(self, seen: Sequence[Moments], unseen: Sequence[Moments], bias: bool) -> tuple[Change | None, float]:
        """The change that leaves the least on the batches held out, computed from all batches then."""
        every = [own.plus(other) for own, other in zip(seen, unseen, strict=True)]
        if self.options.method == "bias":
            if not bias:
                return None, loss(unseen, None)
            return bias_only(every), loss(unseen, bias_only(seen))
        found: list[tuple[float, float]] = []
        for ridge in RIDGES:
            left = loss(unseen, least_squares(seen, ridge, bias))
            found.append((left, ridge))
            if len(found) > 1 and left > found[-2][0]:
                break
        left, ridge = min(found)
        return least_squares(every, ridge, bias), left

    def _moments(
        self,
        pair: Pair,
        matrix: Array,
        dense: list[Values],
        slim: list[Values],
        single: bool,
        offset: Array | None,
    ) -> tuple[Moments, Moments]:
        """Sums over the batches to compute from, and over those held out."""
        form = pair.slim.form
        groups, outputs, features = matrix.shape
        single_matrix = matrix.transpose(0, 2, 1).astype(np.float32)
        sums: list[Moments] = []
        constant = 0.0 if pair.slim.bias is None else get_weight(self.slim, pair.slim.bias).reshape(groups, outputs)
        most = min(self.options.rows, max(3 * features, int(MOST / (groups * features * features))))
        for number, (wanted, given) in enumerate(zip(dense, slim, strict=True)):
            x, y = given[pair.slim.x], self._target(pair, wanted, given, single)
            count = form.count(y)
            some = min(count, max(1, most // len(slim)))
            index = np.sort(self.generator.choice(count, some, replace=False)) if some < count else np.arange(count)
            rows, targets = form.rows(x, y, index), form.targets(y, index)
            if not sums:  # without a bias the rows count as they are
                if offset is None:
                    offset = rows.mean(0) if pair.bias is not None else np.zeros((groups, features), np.float32)
                sums = [Moments(groups, features, outputs, offset) for _ in range(2)]
            made = np.matmul(rows.transpose(1, 0, 2), single_matrix).transpose(1, 0, 2) + constant
            error = targets - made
            if len(slim) == 1:  # one batch: every fifth row is held out
                out = np.arange(len(rows)) % 5 == 4
                sums[0].add(rows[~out], error[~out], targets[~out])
                sums[1].add(rows[out], error[out], targets[out])
            else:
                sums[number in self.held].add(rows, error, targets)
        return sums[0], sums[1]

    def _target(self, pair: Pair, dense: Values, slim: Values, single: bool) -> Array:
        """What the layer is to give: the dense result, and what is missing in the stream that it is added to."""
        axes = self.structure.tensors[pair.dense.y] or ()
        target = restricted(dense[pair.dense.y], axes, self.selection)
        addend = self._addend(pair) if single else None
        if addend is None:
            return target
        stream = restricted(dense[addend], self.structure.tensors[addend] or (), self.selection) - slim[addend]
        if pair.norm is None:
            return target + stream
        gain = pair.norm.gain
        usable = np.abs(gain) > 1e-2 * np.abs(gain).max(initial=0.0)
        factor = np.where(usable, 1 / np.where(usable, gain, 1.0), 0.0)
        shape = [-1 if dim == pair.slim.y_dim else 1 for dim in range(target.ndim)]
        return (target + stream * factor.reshape(shape)).astype(np.float32)


def _names(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)


def _held_out(count: int, share: float) -> frozenset[int]:
    """The batches that nothing is computed from: spread evenly, at least one of several."""
    if count < 2 or share <= 0:
        return frozenset()
    number = min(count - 1, max(1, round(share * count)))
    return frozenset(int((k + 0.5) * count / number) for k in range(number))


def _top(host: Host) -> frozenset[str]:
    nodes: Any = host.graph if isinstance(host, ir.Model) else host.module.graph.nodes
    return frozenset(node.name or "" for node in nodes)
