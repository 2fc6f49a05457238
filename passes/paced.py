"""How a cut is chosen for a latency: by tables, then measured, corrected and chosen again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from graphprune.budget import Amount, Budget
from graphprune.choose import choose
from graphprune.constraints import Constraints
from graphprune.cost import CostModel
from graphprune.curves import Curves
from graphprune.errors import UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.pace import STOPWATCH, Rounding, Stopwatch
from graphprune.pacing import pace
from graphprune.padding import padded
from graphprune.passes.base import Context
from graphprune.passes.eliminate_dead_nodes import EliminateDeadNodes
from graphprune.passes.merge_clones import MergeClones
from graphprune.score.base import Scores
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["PACE", "Chooser", "rounded", "stopwatch_of"]

PACE = "pace"
"""Where a context's data have what came of a latency that was asked for."""


def stopwatch_of(context: Context) -> Stopwatch:
    """The stopwatch that a pipeline was given.

    Raises:
        UsageError: there is none.
    """
    found = context.data.get(STOPWATCH)
    if found is None:
        raise UsageError(
            "a latency, or widths that suit a machine, are measured by a backend: use graphprune.prune, or put a "
            "stopwatch (graphprune.backends.latency.stopwatch) into the context's data"
        )
    return found  # type: ignore[return-value]


def rounded(constraints: Constraints, rounding: Rounding, context: Context) -> Constraints:
    """``constraints`` with the widths that suit the machine, and notes that say why."""
    used = sorted({multiple for multiple in rounding.multiples.values() if multiple > 1})
    said = f"multiples of {', '.join(map(str, used))}" if used else "nothing, no cliff was found"
    context.notes.append(f"round-to auto: {said}")
    context.notes.extend(f"round-to auto: {reason}" for reason in rounding.reasons)
    return dataclasses.replace(constraints, multiples=rounding.multiples)


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Chooses cuts of one model for predicted latencies, and measures them; ``rounding`` pads back where it helps."""

    model: Host
    context: Context
    structure: Structure
    cost: CostModel
    scores: Scores
    budget: Budget
    constraints: Constraints
    curves: Curves | None
    rounding: Callable[[], Rounding] | None = None

    def selection(self) -> Selection:
        """The cut that keeps to the latency; what was asked for and measured is noted in the context.

        Raises:
            TargetError: no cut does; says how far it got.
        """
        stopwatch, clock = stopwatch_of(self.context), self.context.clock
        with clock("tables"):
            prediction = stopwatch.prediction(self.model, self.structure, self.cost)
        target = self.budget.latency
        assert target is not None
        whole = max(prediction(self.cost.extents({})), 1)

        def predicted(selection: Selection) -> int:
            widths = {leaf: int(np.count_nonzero(mask)) for leaf, mask in selection.keep.items()}
            return prediction(self.cost.extents(widths))

        def chosen(limit: int) -> tuple[Selection, int]:
            with clock("choose"):
                budget = dataclasses.replace(self.budget, latency=Amount(limit, time=True))
                found = choose(
                    self.structure, self.scores, budget, self.constraints, self.cost, self.curves, prediction
                )
            return found, predicted(found)

        dense = self._finished(None)

        def measured(selection: Selection) -> tuple[float, float]:
            with clock("measure"):
                first, second = stopwatch.race([dense, self._finished(selection)])
            return first, second

        found, outcome = pace(target, chosen, measured, whole, lambda: stopwatch.race([dense])[0], say=clock.say)
        found = self.padded(found)
        self.context.data[PACE] = outcome
        self.context.notes.append(outcome.text)
        self.context.notes.extend(getattr(stopwatch, "notes", ()))
        return found

    def padded(self, found: Selection) -> Selection:
        """``found``, or what keeps more of each group to reach widths that the machine likes, where that is faster."""
        if self.rounding is None:
            return found
        with self.context.clock("probe"):
            wider = padded(self.structure, found, self.scores, self.rounding().multiples)
        if wider is None or not wider.keep:
            return found
        race, dense = stopwatch_of(self.context).race, self._finished(None)
        with self.context.clock("measure"):
            _, before, after = race([dense, self._finished(found), self._finished(wider)])
        if after >= before:
            return found
        self.context.notes.append(
            f"widths were padded back to multiples that suit the machine: {after * 1e3:.3g} ms instead of "
            f"{before * 1e3:.3g} ms"
        )
        return wider

    def _finished(self, selection: Selection | None) -> Host:
        """A copy of the model, cut, without what a cut leaves behind."""
        model = self.model.clone()
        if selection is not None:
            program_of(model).write(self.structure, selection)
        for step in (EliminateDeadNodes(), MergeClones()):
            step(model)
        return model
