"""Compensate: choose the weights that a cut left anew, so that each layer gives what it gave before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphprune.compensation import Method, Options, compensate
from graphprune.errors import UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context, Decision, Pass, Report, last_cut, register
from graphprune.text import counted

__all__ = ["Compensate"]

FEW = 32
"""Samples below which a report warns."""


@register
@dataclass(frozen=True)
class Compensate(Pass):
    """Choose the weights that the last cut left anew, on calibration inputs and without labels.

    ``method`` is ``least-squares`` (weight and bias of every layer, towards the dense layer's results) or ``bias``
    (only the mean of what is missing). Layers come one after the other, each on what those before it now give;
    ``residual`` restores sums with a residual stream rather than single results. ``rows`` bounds how many rows of a
    layer are looked at, ``holdout`` is the share of the batches on which each change must prove itself.
    """

    method: Method = "least-squares"
    rows: int = 32768
    holdout: float = 0.2
    residual: bool = True
    seed: int = 0

    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Change weights.

        Raises:
            UsageError: there are no calibration inputs, or nothing was cut before.
        """
        batches: Any = context.data.get("calibration")
        if batches is None:
            raise UsageError("compensate needs calibration inputs: give --calib PATH, or calibration=... in Python")
        last = last_cut(context, self.name)
        before = program_of(model).clone()
        synthetic = bool(getattr(batches, "synthetic", False))
        options = Options(self.method, self.rows, self.holdout, self.residual, not synthetic, self.seed)
        feeds = getattr(batches, "feeds", batches)
        with context.clock("compensate"):
            outcome = compensate(last.before, last.structure, last.selection, model, feeds, options, context.clock.say)
        if outcome.changed:
            context.decisions.append(
                Decision(self.name, before, program_of(model).clone(), last.structure, last.selection, estimated=True)
            )
        counts = {"changed": outcome.changed, "whole": outcome.whole, "refused": outcome.refused}
        notes = [f"{counted(outcome.changed, 'layer')} compensated by {self.method}, {outcome.refused} left as cut"]
        if not any(counts.values()):
            notes.append(
                "no layer can be compensated: weights are quantised, recurrent, computed, or inside If and Loop"
            )
        if outcome.changed:
            told = f"{outcome.without:.3g} without, {outcome.distance:.3g} with it"
            notes.append(f"distance of the outputs on held-out batches from the dense ones: {told}")
        samples = getattr(batches, "samples", FEW)
        if samples < FEW:
            notes.append(f"{counted(samples, 'sample')} are few to compensate on: give {FEW} or more")
        return Report(bool(outcome.changed), counts, tuple(notes))
