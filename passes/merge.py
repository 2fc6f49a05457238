"""Merge: give the part of what a cut removed to what it kept, from weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphprune.calibration.data import SYNTHETIC, load_batches
from graphprune.compensation.judge import Judge, put
from graphprune.compensation.merging import Merged, merge
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.text import counted

__all__ = ["Merge", "last_cut"]

_SAMPLES = 32


@register
@dataclass(frozen=True)
class Merge(Pass):
    """Write each position that the last cut removed as a combination of kept ones, and add its columns to theirs.

    Needs no data. ``method`` is ``lbyl`` (all kept positions, by ridge regression of strength ``ridge`` relative to
    their mean square) or ``nearest`` (the most parallel one): see :mod:`graphprune.compensation.merging`. With
    ``guard`` dense and slim model are run on calibration inputs, made up ones where there are none, and merging is
    taken back unless it brings them together.
    """

    method: Literal["lbyl", "nearest"] = "lbyl"
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
        with context.clock("merge"):
            merged = merge(cut.before, cut.structure, cut.selection, model, self.method, self.ridge)
            kept, notes = self._put(model, cut, merged, context)
        if kept:
            context.decisions.append(
                Decision(self.name, before, program_of(model).clone(), cut.structure, cut.selection, estimated=True)
            )
        counts = {"layers": merged.layers, "positions": merged.positions, "parallel": merged.parallel}
        left = tuple(f"{counted(count, 'layer')} not merged: {reason}" for reason, count in merged.left.items())
        return Report(kept, counts if kept else {}, (*notes, *left))

    def _put(self, model: Host, cut: Decision, merged: Merged, context: Context) -> tuple[bool, tuple[str, ...]]:
        if not merged.weights:
            return False, ()
        if not self.guard:
            put(model, merged.weights)
            return True, ()
        batches = context.data.get("calibration")
        if batches is None:
            batches = load_batches(SYNTHETIC, cut.before, limit=_SAMPLES, seed=self.seed, dims=context.dims)
        judge = Judge(cut.before, getattr(batches, "feeds", batches))
        try:
            without, merged_distance = judge.keep_better(model, merged.weights)
        except ModelError as error:  # a number that its type cannot hold
            return False, (f"merging was left out: {error}",)
        if merged_distance < without:
            return True, (
                f"merging brings the outputs nearer to the dense model's: {without:.4g} to {merged_distance:.4g}",
            )
        return False, (
            f"merging was taken back: the outputs are nearer to the dense model's without it "
            f"({without:.4g} against {merged_distance:.4g})",
        )


def last_cut(context: Context, name: str) -> Decision:
    """The last decision that removed positions.

    Raises:
        UsageError: there is none.
    """
    cuts = [each for each in context.decisions if each.selection.keep and not each.lossless and not each.estimated]
    if not cuts:
        raise UsageError(f"{name} comes after a cut: put prune in front of it")
    return cuts[-1]
