"""Verify: prove every cut that the pipeline has made so far, and not proved yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphprune.errors import VerificationError
from graphprune.frontends.program import Host
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.proof import Verification, verify
from graphprune.sample_inputs import random_inputs

__all__ = ["Verify"]


@register
@dataclass(frozen=True)
class Verify(Pass):
    """Compare each cut model with the masked original on ``runs`` random inputs; changes nothing.

    Leaves the list of :class:`~graphprune.proof.Verification` in ``context.data["verify"]``.
    """

    runs: int = 2
    seed: int = 0

    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Prove.

        Raises:
            VerificationError: a cut model differs, or nothing could be shown.
        """
        found = context.data.setdefault("verify", [])
        assert isinstance(found, list)
        with context.clock("verify"):
            for decision in context.decisions[len(found) :]:
                result = self._prove(decision.before, decision.after, context, len(found))
                found.append(result)
                if not result.ok:
                    raise VerificationError(f"{decision.by}: {result.reason}; {_advice(result)}")
        return Report(False, {"proofs": len(found)}, tuple(note for result in found for note in _notes(result)))

    def _prove(self, before: Host, after: Host, context: Context, number: int) -> Verification:
        decision = context.decisions[number]
        if not isinstance(before, ir.Model) or not isinstance(after, ir.Model):
            return self._prove_torch(before, after, decision)
        inputs = None
        if context.dims:
            inputs = [random_inputs(before, self.seed + run, context.dims) for run in range(self.runs)]
        return verify(
            before,
            after,
            decision.structure,
            decision.selection,
            seed=self.seed,
            runs=self.runs,
            inputs=inputs,
            expect_visible=not decision.lossless,
        )

    def _prove_torch(self, before: Host, after: Host, decision: Decision) -> Verification:
        from graphprune.proof.torch_proof import verify_program

        assert not isinstance(before, ir.Model)
        assert not isinstance(after, ir.Model)
        return verify_program(before, after, decision.structure, decision.selection, seed=self.seed, runs=self.runs)


def _advice(result: Verification) -> str:
    """What to do: nothing is advised that would keep a wrong model."""
    shown = result.max_error > result.tolerance
    return "no output is kept" if shown else "no output is kept (--no-verify keeps one without a proof)"


def _notes(result: Verification) -> list[str]:
    """What a proof left out to show anything at all."""
    notes = []
    if result.random_weights:
        notes.append("proved with random weights in the cut layers: with its own the model does not show the cut")
    if result.unrounded:
        notes.append("proved without the rounding of activations to integers, which flips at the last bit")
    if result.before_jumps:
        notes.append(
            "proved by what enters its selections (of boxes, say), which jump where candidates are almost equal"
        )
    return notes
