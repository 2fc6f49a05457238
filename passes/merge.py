"""Merge: give the part of what a cut removed to what it kept, from weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from graphprune.calibration.data import SYNTHETIC, load_batches
from graphprune.compensation.judge import Judge, put
from graphprune.compensation.merging import Merged, Merging, merge
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context, Decision, Pass, Report, last_cut, register
from graphprune.text import counted

__all__ = ["Merge"]

_SAMPLES = 32
_BATCHES = 8
"""The guard runs one dense model and several slim ones, on no more than these."""


@register
@dataclass(frozen=True)
class Merge(Pass):
    """Write each position that the last cut removed as a combination of kept ones, and add its columns to theirs.

    Needs no data. ``method`` is ``lbyl`` (all kept positions, by ridge regression of strength ``ridge`` relative to
    their mean square), ``nearest`` (the most parallel one) or ``auto``, whichever of them does better: see
    :mod:`graphprune.compensation.merging`. With ``guard`` dense and slim model are run on calibration inputs, made up
    ones where there are none, and merging is taken back unless it brings them together; without it ``auto`` is
    ``lbyl``.
    """

    method: Literal["auto", "lbyl", "nearest"] = "auto"
    ridge: float = 0.01
    guard: bool = True
    seed: int = 0

    requires: ClassVar[tuple[str, ...]] = ("prune",)
    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Change weights.

        Raises:
            UsageError: nothing was cut before, or an option makes no sense.
        """
        if not self.ridge > 0:
            raise UsageError(f"ridge: {self.ridge:g} is not positive")
        cut = last_cut(context, self.name)
        before = program_of(model).clone()
        methods: list[Merging] = ["lbyl", "nearest"] if self.method == "auto" else [self.method]
        with context.clock("merge"):
            found = [
                (method, merge(cut.before, cut.structure, cut.selection, model, method, self.ridge))
                for method in methods[: None if self.guard else 1]
            ]
            left = tuple(f"{counted(count, 'layer')} not merged: {why}" for why, count in found[0][1].left.items())
            if not found[0][1].weights:
                return Report(False, notes=left)
            merged, note = self._best(model, cut, found, context)
        if merged is None:
            return Report(False, notes=(note, *left))
        context.decisions.append(
            Decision(self.name, before, program_of(model).clone(), cut.structure, cut.selection, estimated=True)
        )
        counts = {"layers": merged.layers, "positions": merged.positions, "parallel": merged.parallel}
        return Report(True, counts, (note, *left))

    def _best(
        self, model: Host, cut: Decision, found: list[tuple[Merging, Merged]], context: Context
    ) -> tuple[Merged | None, str]:
        """Put the best of what was found into the model; None where the cut model itself is better."""
        if not self.guard:
            method, merged = found[0]
            put(model, merged.weights)
            return merged, f"merged by {method}, unguarded"
        batches: Any = context.data.get("calibration")
        if batches is None:
            batches = load_batches(SYNTHETIC, cut.before, limit=_SAMPLES, seed=self.seed, dims=context.dims)
        judge = Judge(cut.before, list(getattr(batches, "feeds", batches))[:_BATCHES])
        least = without = judge.distance(model)
        best: tuple[Merging, Merged] | None = None
        told = [f"{without:.3g} without"]
        for method, merged in found:
            try:
                old = put(model, merged.weights)
            except ModelError as error:  # a number that its type cannot hold
                told.append(f"none by {method} ({error})")
                continue
            distance = judge.distance(model)
            put(model, old)
            told.append(f"{distance:.3g} by {method}")
            if distance < least:
                least, best = distance, (method, merged)
        errors = f"relative error of the outputs {', '.join(told)}"
        if best is None:
            return None, f"merging was taken back: {errors}"
        put(model, best[1].weights)
        return best[1], f"merged by {best[0]}: {errors}"
