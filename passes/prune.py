"""Prune: score the positions of all groups, choose which to remove within a budget, and cut them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from graphprune.budget import Budget, parse_amount, parse_latency
from graphprune.choose import choose
from graphprune.constraints import MAX_RATIO, Constraints, check
from graphprune.cost import CostModel
from graphprune.curves import Curves
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.pace import STOPWATCH
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.passes.gather import evidence_for
from graphprune.passes.paced import Chooser, rounded, stopwatch_of
from graphprune.score import criterion
from graphprune.score.base import FUNCTION
from graphprune.selection import Selection
from graphprune.structure import Structure
from graphprune.units import parse_units

__all__ = ["Prune", "cut"]

_TARGETS = ("macs", "params", "bytes", "peak")


@register
@dataclass(frozen=True)
class Prune(Pass):
    """Remove the positions that matter least.

    ``ratio`` is the share of positions to remove; ``macs``, ``params``, ``bytes`` and ``peak`` (bytes of activations
    alive at once) are what to keep instead, as ``50%`` or ``2.0G``; ``latency``, as ``50%`` or ``8ms``, is measured by
    the stopwatch in ``context.data`` (:mod:`graphprune.pace`), and so is what ``round_to`` ``auto`` means. With
    ``scope`` local each group loses the same share, with global groups compete; auto is local for a ratio and global
    for a target. ``normalize`` says how the scores of groups that compete are made comparable
    (:mod:`graphprune.score.normalize`), ``max_ratio`` what a group loses at most by competing; with measured ``curves``
    (or a file of them) these say how much of each group goes, instead of the scores (:mod:`graphprune.curves`).
    ``group`` holds ``pattern=ratio`` pairs, each another ratio for the groups it matches. ``units`` names the roles
    whose groups are cut, ``head`` or ``head=0.25`` or ``ffn=0.5:min=64``, each with a ratio and bounds of its own.
    ``criterion`` ``function`` is the one in ``context.data["criterion"]``.
    """

    ratio: float | None = None
    macs: str | None = None
    params: str | None = None
    bytes: str | None = None
    peak: str | None = None
    latency: str | None = None
    criterion: str = "l1"
    scope: Literal["auto", "local", "global"] = "auto"
    normalize: str = "max"
    max_ratio: float = MAX_RATIO
    round_to: int | Literal["auto"] = 1
    min_width: int = 1
    exclude: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    curves: str | Curves | None = None
    units: tuple[str, ...] = ()
    seed: int = 0

    requires: ClassVar[tuple[str, ...]] = ("canonicalize",)
    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Decide and cut.

        Raises:
            TargetError: nothing can be cut, or the budget is out of reach.
            UsageError: an option makes no sense.
        """
        clock, program = context.clock, program_of(model)
        budget, constraints = self._budget(), self._constraints()
        curves = None if self.curves is None else Curves.of_source(self.curves)
        own: Any = context.data.get("criterion") if self.criterion == FUNCTION else None
        judge = criterion(self.criterion if own is None else own, self.seed)
        with clock("analyse"):
            structure = program.read()
            cost = CostModel(structure, program.sizes(context.dims))
            check(structure, cost, budget, constraints, curves)
        with clock("score"):
            scores = judge.score(evidence_for(judge, model, structure, context, self.seed))
        rounding = None
        measured = budget.ratio is not None and STOPWATCH in context.data  # what is kept of a target is a promise
        if self.round_to == "auto" or budget.latency is not None or measured:
            stopwatch = stopwatch_of(context)
            rounding = functools.partial(stopwatch.rounding, model, structure, cost)
        if self.round_to == "auto":
            assert rounding is not None
            with clock("probe"):
                constraints, rounding = rounded(constraints, rounding(), context), None
        chooser = Chooser(model, context, structure, cost, scores, budget, constraints, curves, rounding)
        if budget.latency is not None:
            selection = chooser.selection()
        else:
            with clock("choose"):
                selection = choose(structure, scores, budget, constraints, cost, curves)
            selection = chooser.padded(selection) if measured else selection
        groups = sum(selection.cuts(group.leaf) for group in structure.groups)
        if not groups and (self.ratio is None or self.ratio > 0):
            raise TargetError(_too_little(structure, budget))
        with clock("cut"):
            cut(model, context, structure, selection, self.name)
        return Report(bool(groups), {"groups cut": groups})

    def check(self, model: Host, dims: Mapping[str, int] | None = None) -> None:
        """Refuse what makes no sense for ``model``, before anything that takes long.

        Raises:
            TargetError, UsageError: as :meth:`run`, as far as that can be said without scores.
        """
        program = program_of(model)
        structure = program.read()
        cost = CostModel(structure, program.sizes(dims))
        check(structure, cost, self._budget(), self._constraints())

    def _budget(self) -> Budget:
        if self.ratio is None and not any(getattr(self, name) for name in (*_TARGETS, "latency")):
            units = parse_units(self.units)
            given = [name for name, unit in units.items() if unit.ratio is not None]
            for name, unit in units.items():
                if unit.ratio is None and (given or self.group):
                    raise UsageError(f"unit '{name}' has no ratio and there is no budget: write {name}=0.5, or a ratio")
            if given or self.group:
                return Budget(ratio=0.0)  # only the groups that patterns and units name
        amounts = {name: parse_amount(text) for name in _TARGETS if (text := getattr(self, name))}
        latency = parse_latency(self.latency) if self.latency else None
        return Budget(ratio=self.ratio, latency=latency, **amounts)

    def _constraints(self) -> Constraints:
        ratios: dict[str, float] = {}
        for entry in self.group:
            pattern, equals, number = entry.rpartition("=")
            try:
                ratios[pattern] = float(number)
            except ValueError:
                equals = ""
            if not equals:
                raise UsageError(f"group '{entry}' is not PATTERN=RATIO")
        return Constraints(
            scope=self.scope,
            round_to=1 if self.round_to == "auto" else self.round_to,
            min_width=self.min_width,
            exclude=self.exclude,
            ratios=ratios,
            units=parse_units(self.units),
            normalizer=self.normalize,
            max_ratio=self.max_ratio,
        )


def cut(
    model: Host,
    context: Context,
    structure: Structure,
    selection: Selection,
    by: str,
    *,
    before: Host | None = None,
    lossless: bool = False,
) -> bool:
    """Carry ``selection`` out on ``model`` and leave the decision in ``context``; tells whether anything went.

    ``before`` is the model as it was, if the pass has already changed weights.
    """
    program = program_of(model)
    before = program.clone() if before is None else before
    changed = program.write(structure, selection)
    if changed:
        context.decisions.append(Decision(by, before, program.clone(), structure, selection, lossless))
    return changed


def _too_little(structure: Structure, budget: Budget) -> str:
    largest = max((group.size for group in structure.groups), default=0)
    return (
        f"{'ratio ' + format(budget.ratio, 'g') if budget.ratio is not None else 'the target'} removes nothing: the "
        f"largest of {len(structure.groups)} groups has {largest} positions; ask for more, or relax the constraints"
    )
