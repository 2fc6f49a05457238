"""The proof that a slim model computes what the original computes with the removed positions erased.

The *masked original* (:mod:`graphprune.proof.mask`) and the slim model run on the same random inputs in ONNX Runtime
and must agree to rounding; the slim model must also differ from the original as it was, or nothing was shown. Removed
positions of the parameters hold other values in the masked original than in the original, so an operator that looks at
them where nobody knew it shows as well. What random inputs cannot reach, weights behind a switched-off ReLU, is
compared bit by bit (:mod:`graphprune.proof.weights`).

Where the cut changes nothing, because what went was dead or because the outputs do not depend on it (all weights of a
layer may be equal), the graphs are compared once more with random weights: since the slim weights are known to be the
kept ones bit by bit, it is enough that the graphs agree for the kept part of any others.

*Tolerance.* The difference is relative to the scale of the output (:mod:`graphprune.proof.compare`). First it is held
against what independent rounding of all summands on the way explains. An ill-conditioned network (a logarithm of
nothing, a normalisation of almost equal numbers) amplifies rounding; so where the first bound is exceeded, the
amplification is measured: the masked original runs again with every parameter and input changed by a relative 2^-20,
as much as the rounding of 256 sums, and :data:`AMPLIFIED` times the change that this makes is the tolerance, as long as
it stays below :data:`CEILING` and below a quarter of what the cut itself changes. A channel out of place changes an
output by much more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.proof.compare import Difference, compare, error_growth, worst
from graphprune.proof.mask import masked_original
from graphprune.proof.run import Outputs, Runner
from graphprune.proof.values import perturb, poison, reseed
from graphprune.proof.variants import before_jumps, bounded_outputs, expose, hidden_values, unround
from graphprune.proof.weights import misplaced
from graphprune.sample_inputs import Inputs, input_specs, inputs_that_run
from graphprune.selection import Selection
from graphprune.structure import Structure
from graphprune.text import first_line

__all__ = ["Verification", "masked_original", "verify"]

QUANTUM = 2.0**-7
"""One step of 8-bit quantisation against its range: rounding may flip it inside a network that quantises."""

AMPLIFIED = 8.0
CEILING = 1e-2
PERTURBATION = 2.0**-20
MARGIN = 4.0
"""How many tolerances apart original and slim must be for the cut to count as visible."""

SCALES = (1.0, 8.0)
"""Standard deviations of random inputs in turn: some networks expect pixels up to 255, and other units wake up."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    ``max_error`` is the largest scaled difference between slim and reference, ``visible`` that between slim and the
    original as it was, ``visible_ok`` whether the comparison could have failed; ``outputs`` are the differences output
    by output; ``random_weights`` tells that the figures are those of random weights, since with its own the model does
    not show the cut, ``unrounded`` that activations were not rounded to integers in either model, ``before_jumps`` that
    the models were compared by what enters a selection (of boxes, say), ``widened`` that the figures are those of
    float64; ``reason`` says why ``ok`` is False.
    """

    ok: bool
    max_error: float = float("nan")
    max_abs_error: float = float("nan")
    tolerance: float = float("nan")
    visible: float = float("nan")
    visible_ok: bool = False
    outputs: tuple[Difference, ...] = ()
    seconds: float = 0.0
    runs: int = 0
    random_weights: bool = False
    unrounded: bool = False
    before_jumps: bool = False
    widened: bool = False
    reason: str = ""


class _Failed(Exception):
    """The proof ended early; the message says why."""


def verify(
    original: ir.Model,
    slim: ir.Model,
    structure: Structure,
    selection: Selection,
    *,
    seed: int = 0,
    runs: int = 2,
    inputs: Inputs | Sequence[Inputs] | None = None,
    tolerance: float | None = None,
    expect_visible: bool = True,
    poisoned: bool = True,
    weights: bool = True,
) -> Verification:
    """Compare ``slim`` with the masked original on random inputs, or on ``inputs``.

    Args:
        original: the canonical model that ``structure`` was read from; not changed.
        slim: the model cut by ``selection``; not changed.
        structure: axes and mixes of ``original``.
        selection: what was kept.
        seed: of inputs and replaced values.
        runs: on how many random inputs.
        inputs: one or several sets of arrays to run on instead.
        tolerance: a scaled difference to accept; by default what rounding explains.
        expect_visible: False where only dead positions went: then slim must equal the original as it was.
        poisoned: whether removed positions of parameters are given other values.
        weights: whether parameters that were cut must be bits of the original's; False where a pass changed them.
    """
    start = time.perf_counter()
    try:
        if weights and expect_visible and (name := misplaced(original, slim, structure, selection)):
            raise _Failed(f"parameter '{name}' is not the kept part of the original's")
        proof = _Proof(original, slim, structure, selection, seed, poisoned and expect_visible, expect_visible)
        feeds, before = proof.feeds(runs, inputs)
        result = proof.compare(feeds, before, tolerance)
        if result.max_error > (proof.bound() if tolerance is None else tolerance):
            result = proof.without_rounding(feeds, tolerance) or result
        if not result.ok:
            result = proof.without_jumps(feeds, tolerance) or result
        if weights and expect_visible and not result.visible_ok and result.max_error <= result.tolerance:
            result = proof.with_random_weights(feeds, before, tolerance) or result
    except _Failed as error:
        result = Verification(False, reason=str(error))
    return replace(result, seconds=time.perf_counter() - start)


class _Proof:
    """One verification: its models, and the inputs and outputs so far."""

    def __init__(
        self,
        original: ir.Model,
        slim: ir.Model,
        structure: Structure,
        selection: Selection,
        seed: int,
        poisoned: bool,
        expect_visible: bool,
    ) -> None:
        hidden = hidden_values(original, structure, selection)
        self.original, self.slim = expose(original, hidden), expose(slim, hidden)
        self.structure, self.selection = structure, selection
        self.seed, self.poisoned, self.expect_visible = seed, poisoned, expect_visible
        self.names = [value.name or "" for value in self.original.graph.outputs]
        self.bounded = bounded_outputs(original)
        self.rounds = True

    def without_jumps(self, feeds: list[Inputs], tolerance: float | None) -> Verification | None:
        """The same comparison by what enters selections such as a detector's; None if that shows nothing either."""
        found = before_jumps(self.original, self.structure, self.selection)
        if found is None:
            return None
        entering, behind = found
        made = {value.name for node in self.slim.graph for value in node.outputs}
        entering = [name for name in entering if name in made]  # whole operators may have gone
        original, slim = expose(self.original, entering, behind), expose(self.slim, entering, behind)
        again = _Proof(original, slim, self.structure, self.selection, self.seed, self.poisoned, self.expect_visible)
        result = again.compare(feeds, again._run(again.original, "the original", feeds), tolerance)
        return replace(result, before_jumps=True) if result.ok else None

    def without_rounding(self, feeds: list[Inputs], tolerance: float | None) -> Verification | None:
        """The same comparison of models that do not round activations to integers; None where none is rounded."""
        if not unround(self.original.clone()):
            return None
        self.rounds = False
        result = self.compare(feeds, self._run(self.original, "the original", feeds), tolerance)
        self.rounds = True
        return replace(result, unrounded=True)

    def with_random_weights(
        self, feeds: list[Inputs], before: list[Outputs], tolerance: float | None
    ) -> Verification | None:
        """The same comparison with random weights; None where the slim model lacks parameters of the original."""
        original, slim = self.original.clone(), self.slim.clone()
        if not reseed(original, slim, self.structure, self.selection, self.seed):
            return None
        again = _Proof(original, slim, self.structure, self.selection, self.seed, self.poisoned, self.expect_visible)
        own = again._run(original, "the original with random weights", feeds)
        result = replace(again.compare(feeds, own, tolerance), random_weights=True)
        if result.visible_ok or result.max_error > result.tolerance:
            return result
        if self._apart(before, own) > MARGIN * result.tolerance:
            return replace(result, ok=True, visible_ok=True, reason="")
        return result

    def feeds(self, runs: int, inputs: Inputs | Sequence[Inputs] | None) -> tuple[list[Inputs], list[Outputs]]:
        """Inputs, and what the original makes of them."""
        runner = Runner(self.original)
        if inputs is not None:
            given = [inputs] if isinstance(inputs, dict) else list(inputs)
            return given, self._run(self.original, "the original", given)
        found: list[Outputs] = []
        try:
            first = inputs_that_run(lambda feed: found.append(runner(feed)), input_specs(self.original), self.seed)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise _Failed(f"the original cannot be run: {first_line(error)}") from error
        more = [_again(first, self.seed + number, SCALES[number % len(SCALES)]) for number in range(1, runs)]
        try:
            return [first, *more], [found[-1], *(runner.run(more) if more else [])]
        except Exception:  # inputs of another size of values that the model does not take
            return [first], [found[-1]]

    def _run(self, model: ir.Model, what: str, feeds: Sequence[Inputs]) -> list[Outputs]:
        if not self.rounds:
            model = model.clone()
            unround(model)
        try:
            return Runner(model).run(feeds)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise _Failed(f"{what} cannot be run: {first_line(error)}") from error

    def _reference(self, change: Callable[[ir.Model], None] = lambda model: None) -> ir.Model:
        if not self.expect_visible:
            model = self.original.clone()
        else:
            try:
                model = masked_original(self.original, self.structure, self.selection)
            except (ValueError, TypeError) as error:
                raise _Failed(f"the masked original cannot be made: {error}") from error
        change(model)
        return model

    def _poison(self, model: ir.Model) -> None:
        poison(model, self.structure, self.selection, self.seed)

    def compare(self, feeds: list[Inputs], before: list[Outputs], tolerance: float | None) -> Verification:
        """Slim against the reference, and against the original, whose outputs are ``before``."""
        if self.expect_visible:
            masked = self._reference(self._poison if self.poisoned else lambda model: None)
            references = self._run(masked, "the masked original", feeds)
        else:
            references = before
        after = self._run(self.slim, "the slim model", feeds)
        differences = worst([compare(self.names, a, b, self.bounded) for a, b in zip(references, after, strict=True)])
        cut = worst([compare(self.names, a, b, self.bounded) for a, b in zip(before, after, strict=True)])
        error = max((d.error for d in differences), default=0.0)
        visible = max((d.error for d in cut), default=0.0)
        allowed = self.bound() if tolerance is None else tolerance
        if tolerance is None and allowed < error < CEILING:
            most = visible / MARGIN if self.expect_visible else CEILING
            allowed = max(allowed, min(self._amplified(feeds, references), CEILING, most))
        agrees = error <= allowed
        if self.expect_visible:
            visible_ok = visible > MARGIN * allowed
        else:
            visible_ok = any(d.finite for d in differences)
        return Verification(
            ok=agrees and visible_ok,
            max_error=error,
            max_abs_error=max((d.absolute for d in differences), default=0.0),
            tolerance=allowed,
            visible=visible,
            visible_ok=visible_ok,
            outputs=differences,
            runs=len(feeds),
            reason=self._reason(agrees, visible_ok, differences, feeds, after, allowed),
        )

    def bound(self) -> float:
        """The error that rounding alone explains."""
        results = {
            node.name or "": tuple(value.name or "" for value in node.outputs)
            for graph in self.original.graphs()
            for node in graph
        }
        return error_growth(self.structure, results)

    def _amplified(self, feeds: list[Inputs], references: list[Outputs]) -> float:
        """What changes of the size of rounding do to the outputs, times a safety factor."""
        if self.rounds and any("Quantize" in call.op for call in self.structure.calls):
            return QUANTUM

        def change(model: ir.Model) -> None:
            if self.poisoned:
                self._poison(model)
            perturb(model, PERTURBATION, self.seed)

        model = self._reference(change)
        moved = self._run(model, "the masked original", [_nudged(feed, self.seed) for feed in feeds])
        return AMPLIFIED * self._apart(references, moved)

    def _apart(self, a: list[Outputs], b: list[Outputs]) -> float:
        """The largest scaled difference between two lists of outputs."""
        gaps = worst([compare(self.names, x, y, self.bounded) for x, y in zip(a, b, strict=True)])
        return max((d.error for d in gaps), default=0.0)

    def _reason(
        self,
        agrees: bool,
        visible_ok: bool,
        differences: tuple[Difference, ...],
        feeds: list[Inputs],
        after: list[Outputs],
        allowed: float,
    ) -> str:
        if not agrees:
            bad = max(differences, key=lambda d: d.error)
            reference = "masked original" if self.expect_visible else "original"
            text = bad.note or f"differs from the {reference} by {bad.error:.2g} of its scale, allowed {allowed:.2g}"
            if self.poisoned and self._agrees_unpoisoned(feeds, after, allowed):
                return f"output '{bad.name}' depends on what was removed: an operator reads it where no rule says so"
            return f"output '{bad.name}' {text}"
        if not any(d.finite for d in differences):
            return "no output is a finite number on random inputs, so nothing was shown; give real inputs"
        if not visible_ok:
            return "the cut changes no output on random inputs, so nothing was shown; give real inputs"
        return ""

    def _agrees_unpoisoned(self, feeds: list[Inputs], after: list[Outputs], allowed: float) -> bool:
        references = self._run(self._reference(), "the masked original", feeds)
        return self._apart(references, after) <= allowed


def _again(feed: Inputs, seed: int, scale: float) -> Inputs:
    """Other inputs of the same shapes: new floats, the same integers in another order."""
    generator = np.random.default_rng(seed)
    return {
        name: np.asarray(scale * generator.standard_normal(array.shape)).astype(array.dtype)
        if _real(array)
        else (generator.permuted(array) if array.ndim else array)
        for name, array in feed.items()
    }


def _nudged(feed: Inputs, seed: int) -> Inputs:
    generator = np.random.default_rng(seed)
    return {
        name: (array * (1 + PERTURBATION * generator.choice([-1.0, 1.0], array.shape))).astype(array.dtype)
        if _real(array)
        else array
        for name, array in feed.items()
    }


def _real(array: np.ndarray[Any, Any]) -> bool:
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")
