"""Recalibrate: set the statistics of channels right again after a cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphprune.compensation.judge import Judge, put
from graphprune.compensation.recalibration import recalibrate
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context, Decision, Pass, Report, last_cut, register
from graphprune.text import counted

__all__ = ["Recalibrate"]


@register
@dataclass(frozen=True)
class Recalibrate(Pass):
    """Estimate the statistics of batch normalisations anew, and match the channels of other layers to the dense ones.

    Needs calibration inputs, no labels. ``match`` False leaves layers alone behind which there is no batch
    normalisation. ``holdout`` is the share of the batches on which the outputs must have come nearer to the dense
    model's; otherwise all is taken back. A single batch serves for both.
    """

    match: bool = True
    holdout: float = 0.2
    seed: int = 0

    requires: ClassVar[tuple[str, ...]] = ("prune",)
    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Change weights and statistics.

        Raises:
            UsageError: there are no calibration inputs, nothing was cut before, or an option makes no sense.
        """
        if not 0 <= self.holdout < 1:
            raise UsageError(f"holdout: {self.holdout:g} is not a share from 0 to below 1")
        batches: Any = context.data.get("calibration")
        if batches is None:
            raise UsageError("recalibrate needs calibration inputs: give --calib PATH, or calibration=... in Python")
        cut = last_cut(context, self.name)
        feeds = list(getattr(batches, "feeds", batches))
        held = min(max(1, round(self.holdout * len(feeds))), len(feeds) - 1) if self.holdout else 0
        own, judged = feeds[: len(feeds) - held], feeds[len(feeds) - held :] or feeds
        before = program_of(model).clone()
        with context.clock("recalibrate"):
            judge = Judge(cut.before, judged)
            without = judge.distance(model)
            trial = program_of(model).clone()
            try:
                found = recalibrate(
                    cut.before, cut.structure, cut.selection, trial, own, match=self.match, seed=self.seed
                )
            except ModelError as error:  # a number that its type cannot hold
                return Report(False, notes=(f"recalibration was left out: {error}",))
            distance = judge.distance(trial)
        if not found.weights:
            return Report(False, notes=("nothing holds statistics of channels",))
        told = f"relative error of the outputs {without:.3g} without, {distance:.3g} with it"
        if not distance < without:
            return Report(False, notes=(f"recalibration was taken back: {told}",))
        put(model, found.weights)
        context.decisions.append(
            Decision(self.name, before, program_of(model).clone(), cut.structure, cut.selection, estimated=True)
        )
        done = f"{counted(found.normalisations, 'normalisation')} and {counted(found.layers, 'layer')} recalibrated"
        counts = {"normalisations": found.normalisations, "layers": found.layers}
        return Report(True, counts, (f"{done}: {told}",))
