"""Verify: prove every cut that the pipeline has made so far, and not proved yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from graphprune.errors import VerificationError
from graphprune.frontends.program import Host
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.proof import Verification, verify
from graphprune.proof.compare import compare
from graphprune.proof.run import Runner
from graphprune.proof.verification import MARGIN
from graphprune.sample_inputs import input_specs, inputs_that_run, random_inputs
from graphprune.selection import Selection

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
            for decision in _provable(context)[len(found) :]:
                result = self._prove(decision, context)
                found.append(result)
                if not result.ok:
                    raise VerificationError(f"{decision.by}: {result.reason}; {_advice(result)}")
        return Report(False, {"proofs": len(found)}, tuple(note for result in found for note in _notes(result)))

    def _prove(self, decision: Decision, context: Context) -> Verification:
        before, after = decision.before, decision.after
        if decision.reference is not None:
            return self._prove_removal(decision, decision.reference, context)
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

    def _prove_removal(self, decision: Decision, reference: Host, context: Context) -> Verification:
        """Where operators went, the rest must equal the reference; whether the cut shows at all is told."""
        equal = self._equal(reference, decision.after, decision, context)
        agrees = equal.max_error <= equal.tolerance
        reason = "" if agrees else equal.reason or "differs from the model whose blocks add nothing"
        visible = self._apart(decision, context) if agrees else float("nan")
        shown = visible > MARGIN * equal.tolerance
        return replace(equal, ok=agrees, visible=visible, visible_ok=shown, reason=reason)

    def _apart(self, decision: Decision, context: Context) -> float:
        """The largest scaled difference that a decision made."""
        before, after = decision.before, decision.after
        if not isinstance(before, ir.Model) or not isinstance(after, ir.Model):
            return self._equal(before, after, decision, context).max_error
        runner = Runner(before)
        feed = inputs_that_run(runner, input_specs(before), self.seed, context.dims)
        names = [value.name or "" for value in before.graph.outputs]
        gaps = compare(names, runner(feed), Runner(after)(feed))
        return max((gap.error for gap in gaps), default=0.0)

    def _equal(self, reference: Host, after: Host, decision: Decision, context: Context) -> Verification:
        structure = decision.structure
        if isinstance(reference, ir.Model) and isinstance(after, ir.Model):
            inputs = None
            if context.dims:
                inputs = [random_inputs(reference, self.seed + run, context.dims) for run in range(self.runs)]
            return verify(
                reference,
                after,
                structure,
                Selection(structure.space, {}),
                seed=self.seed,
                runs=self.runs,
                inputs=inputs,
                expect_visible=False,
            )
        from graphprune.proof.torch_proof import verify_program

        assert not isinstance(reference, ir.Model)
        assert not isinstance(after, ir.Model)
        structure = after.read()  # it names no weights that are gone
        nothing = Selection(structure.space, {})
        return verify_program(
            reference, after, structure, nothing, seed=self.seed, runs=self.runs, poisoned=False, weights=False
        )

    def _prove_torch(self, before: Host, after: Host, decision: Decision) -> Verification:
        from graphprune.proof.torch_proof import verify_program

        assert not isinstance(before, ir.Model)
        assert not isinstance(after, ir.Model)
        return verify_program(before, after, decision.structure, decision.selection, seed=self.seed, runs=self.runs)


def _provable(context: Context) -> list[Decision]:
    """The decisions that something must be equal after; where weights were chosen anew nothing is."""
    return [decision for decision in context.decisions if not decision.estimated]


def _advice(result: Verification) -> str:
    """What to do: nothing is advised that would keep a wrong model."""
    shown = result.max_error > result.tolerance
    return "no output is kept" if shown else "no output is kept (--no-verify keeps one without a proof)"


def _notes(result: Verification) -> list[str]:
    """What a proof left out to show anything at all."""
    notes = []
    if result.ok and not result.visible_ok and result.visible == result.visible:
        notes.append("what was left out changes no output on random inputs")
    if result.random_weights:
        notes.append("proved with random weights in the cut layers: with its own the model does not show the cut")
    if result.unrounded:
        notes.append("proved without the rounding of activations to integers, which flips at the last bit")
    if result.before_jumps:
        notes.append(
            "proved by what enters its selections (of boxes, say), which jump where candidates are almost equal"
        )
    return notes
