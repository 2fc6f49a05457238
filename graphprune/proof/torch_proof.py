"""The proof that a slim PyTorch program computes what the original computes with the removed positions erased.

The *masked original* (:mod:`graphprune.proof.torch_mask`) and the slim program run in eager PyTorch on the example
inputs and on random ones like them, nothing dropped at random, and must agree to rounding; the slim program must also
differ from the original as it was, or nothing was shown. As for ONNX (:mod:`graphprune.proof.verification`), removed
positions of weights hold other values in the masked original, every weight is compared bit by bit, and where the
weights hide the cut (a head or the end of a residual branch may start from zero) the graphs are compared once more with
random ones.

*Tolerance.* Half precision is compared in float32. Where the difference exceeds what independent rounding explains, or
the cut changes too little to be told from rounding, both programs run once more in float64: there the bound is a
thousand million times tighter, so an ill-conditioned network passes it and a wrong one does not. If it is exceeded as
well, or float64 does not run (an operator may lack a kernel), the amplification of rounding is measured as for ONNX.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from graphprune.frontends.torch_program import TorchProgram
from graphprune.proof.compare import Difference, compare, error_growth, worst
from graphprune.proof.torch_ends import bounded_outputs, hidden_values, output_names
from graphprune.proof.torch_graphs import copied, evaluated, has_half, widened, widest
from graphprune.proof.torch_inputs import again, examples, nudged
from graphprune.proof.torch_mask import masked_original
from graphprune.proof.torch_run import Leaves, Values, leaves_of, run
from graphprune.proof.torch_values import chained, kept, only_cut, perturb, poison, reseed
from graphprune.proof.torch_weights import misplaced, unloaded
from graphprune.proof.verification import AMPLIFIED, CEILING, MARGIN, PERTURBATION, SCALES, Verification
from graphprune.selection import Selection
from graphprune.structure import Structure
from graphprune.text import first_line

__all__ = ["Inputs", "differences", "verify_program"]

Inputs: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]
"""Positional and keyword arguments of one run."""

FINER = 2.0**-29
"""The unit roundoff of float64 in those of float32."""


class _Failed(Exception):
    """The proof ended early; the message says why."""


class _NotRun(_Failed):
    """A graph could not be run."""


def verify_program(
    original: TorchProgram,
    slim: TorchProgram,
    structure: Structure,
    selection: Selection,
    *,
    seed: int = 0,
    runs: int = 2,
    inputs: Sequence[Inputs] | None = None,
    tolerance: float | None = None,
    poisoned: bool = True,
    weights: bool = True,
) -> Verification:
    """Compare ``slim`` with the masked original; neither program, nor what its weights hold, is changed.

    Args:
        original: the program that ``structure`` was read from.
        slim: the program cut by ``selection``.
        structure: axes and mixes of ``original``.
        selection: what was kept.
        seed: of inputs and replaced values.
        runs: on how many inputs; the first are the example inputs, the others random.
        inputs: pairs of arguments and keyword arguments to run on instead.
        tolerance: a scaled difference to accept; by default what rounding explains.
        poisoned: whether removed positions of weights are given other values.
        weights: whether weights must be bits of the original's; False where a pass changed them.
    """
    start = time.perf_counter()
    try:
        if name := unloaded(original.module, structure) or unloaded(slim.module, structure):
            raise _Failed(f"weight '{name}' is on the meta device and has no values to run on; load the weights first")
        if weights and (name := misplaced(original.module, slim.module, structure, selection)):
            raise _Failed(f"parameter '{name}' is not the kept part of the original's")
        proof = _Proof(original, slim, structure, selection, seed, poisoned, tolerance)
        feeds = proof.feeds(runs, inputs)
        result = proof.prove(feeds, _OWN)
        if weights and not result.visible_ok and result.max_error <= result.tolerance:
            result = proof.with_random_weights(feeds, result)
        if not result.ok:
            result = replace(result, reason=proof.reason(result))
    except _Failed as error:
        result = Verification(False, reason=str(error))
    return replace(result, seconds=time.perf_counter() - start)


def differences(
    names: Sequence[str], references: Leaves, outputs: Leaves, bounded: frozenset[str] = frozenset()
) -> tuple[Difference, ...]:
    """How each output differs from its reference; what is no tensor must be equal."""
    found: list[Difference] = []
    for name, reference, output in zip(names, references, outputs, strict=True):
        a, b = _array(reference), _array(output)
        if a is not None and b is not None:
            found.extend(compare([name], [a], [b], bounded))
        elif type(reference) is type(output) and a is b is None and reference == output:
            found.append(Difference(name, 0.0, 0.0, False, ""))
        else:
            found.append(
                Difference(name, np.inf, np.inf, True, f"is {output!r:.40} where the reference is {reference!r:.40}")
            )
    return tuple(found)


def _array(value: Any) -> Any:
    """A tensor or number as an array, None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
            value = value.float()
        return value.resolve_conj().resolve_neg().numpy()
    return np.asarray(value) if isinstance(value, int | float | complex) else None


def _same(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weights of the original and of the slim program, as functions of their own."""

    original: Values
    slim: Values


_OWN = _Weights(_same, _same)

_Run: TypeAlias = tuple[Leaves, Leaves, Leaves]
"""Inputs, and what the masked original and the slim program make of them."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What was compared with what."""

    graphs: _Graphs
    weights: _Weights
    runs: list[_Run]


class _Graphs:
    """The variants of one program, in an element type of their own where ``dtype`` says so."""

    def __init__(self, proof: _Proof, dtype: torch.dtype | None) -> None:
        self.proof, self.dtype = proof, dtype
        try:
            masked = masked_original(proof.program, proof.structure, proof.selection)
        except (ValueError, TypeError, RuntimeError) as error:
            raise _Failed(f"the masked original cannot be made: {error}") from error
        self.masked = self._ready(masked)
        self.slim = self._ready(copied(proof.slim.module))
        self.original = self._ready(copied(proof.program.module))

    def _ready(self, module: fx.GraphModule) -> fx.GraphModule:
        evaluated(module)
        return module if self.dtype is None else widened(module, self.dtype)

    def run(self, module: fx.GraphModule, what: str, leaves: Leaves, values: Values) -> Leaves:
        """The outputs of one variant, and what is compared beside them."""
        dtype = self.dtype
        if dtype is not None:
            leaves = [widest(each, dtype) if isinstance(each, torch.Tensor) else each for each in leaves]
            values = chained(values, lambda name, tensor: widest(tensor, dtype))
        try:
            return run(module, leaves, values, seed=self.proof.seed, expose=self.proof.exposed, dtype=dtype)
        except Exception as error:  # operators raise whatever they like
            raise _NotRun(f"{what} cannot be run: {first_line(error)}") from error


class _Proof:
    """One verification: its programs, and how they are compared."""

    def __init__(
        self,
        program: TorchProgram,
        slim: TorchProgram,
        structure: Structure,
        selection: Selection,
        seed: int,
        poisoned: bool,
        tolerance: float | None,
    ) -> None:
        self.program, self.slim, self.structure, self.selection = program, slim, structure, selection
        self.seed, self.poisoned, self.tolerance = seed, poisoned, tolerance
        there = {node.name for node in slim.module.graph.nodes}
        self.exposed = [name for name in hidden_values(program.module, structure, selection) if name in there]
        self.names = [*output_names(program.module), *self.exposed]
        self.bounded = bounded_outputs(program.module)
        self.bound = error_growth(structure, {call.node: call.results for call in structure.calls})
        self.last: _Comparison
        self._made: dict[torch.dtype | None, _Graphs] = {}

    # -- inputs ---------------------------------------------------------------------------------------------------

    def feeds(self, runs: int, inputs: Sequence[Inputs] | None) -> list[Leaves]:
        """What to run on, nested containers opened."""
        module = self.program.module
        if inputs is not None:
            return [self._leaves(*each) for each in inputs]
        given = self.program.args or self.program.kwargs
        example = examples(module, self._leaves(self.program.args, self.program.kwargs) if given else None, self.seed)
        more = [again(example, self.seed + number, SCALES[number % len(SCALES)]) for number in range(1, runs)]
        return [example, *more]

    def _leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Leaves:
        return leaves_of(self.program.module, args, kwargs)

    # -- comparisons ----------------------------------------------------------------------------------------------

    def prove(self, feeds: list[Leaves], weights: _Weights) -> Verification:
        """The comparison with these weights, in float64 where float32 does not settle it."""
        own = torch.float32 if has_half(self.program.module, feeds[0]) else None
        result = self.compare(feeds, weights, own, self.bound)
        if self.tolerance is not None or result.ok or not np.isfinite(result.max_error):
            return result
        if result.max_error <= result.tolerance and result.visible == 0:
            return result
        try:
            return replace(self.compare(feeds, weights, torch.float64, self.bound * FINER, self.bound), widened=True)
        except _NotRun:
            return self.compare(feeds, weights, own, self.bound, CEILING)

    def compare(
        self, feeds: list[Leaves], weights: _Weights, dtype: torch.dtype | None, bound: float, ceiling: float = 0.0
    ) -> Verification:
        """Slim against the masked original, and against the original as it was.

        Where the difference is above ``bound`` and not above ``ceiling``, it is held against what changes of the size
        of rounding do.
        """
        graphs = self._graphs(dtype)
        hidden: Values = poison(self.structure, self.selection, self.seed) if self.poisoned else _same
        done: list[_Run] = []
        found: list[tuple[Difference, ...]] = []
        visible = 0.0
        allowed = bound if self.tolerance is None else self.tolerance
        for number, leaves in enumerate(feeds):
            try:
                reference = graphs.run(graphs.masked, "the masked original", leaves, chained(weights.original, hidden))
            except _NotRun:
                if not number:
                    graphs.run(
                        graphs.original, "the original", leaves, weights.original
                    )  # if that fails, it is to blame
                    raise
                continue  # random inputs that the program does not take
            output = graphs.run(graphs.slim, "the slim program", leaves, weights.slim)
            found.append(self._differences(reference, output))
            done.append((leaves, reference, output))
            if visible <= MARGIN * allowed:
                before = graphs.run(graphs.original, "the original", leaves, weights.original)
                visible = max(visible, _largest(self._differences(before, output)))
        gaps = worst(found)
        error = _largest(gaps)
        if self.tolerance is None and allowed < error < ceiling:
            moved = self._amplified(graphs, done, weights, hidden)
            allowed = max(allowed, min(moved, ceiling, visible / MARGIN))
        self.last = _Comparison(graphs, weights, done)
        visible_ok = visible > MARGIN * allowed
        return Verification(
            ok=error <= allowed and visible_ok,
            max_error=error,
            max_abs_error=max((gap.absolute for gap in gaps), default=0.0),
            tolerance=allowed,
            visible=visible,
            visible_ok=visible_ok,
            outputs=gaps,
            runs=len(done),
        )

    def with_random_weights(self, feeds: list[Leaves], before: Verification) -> Verification:
        """The same comparison with random weights, since with its own the program does not show the cut.

        Where it still does not show, what was removed has no influence; it is enough then that what was kept has.
        """
        change = reseed(self.structure, self.selection, self.seed)
        weights = _Weights(change, kept(self.program.module, self.structure, self.selection, change))
        result = replace(self.prove(feeds, weights), random_weights=True)
        if result.visible_ok or result.max_error > result.tolerance:
            return result
        graphs = self.last.graphs
        others = only_cut(self.structure, self.selection, reseed(self.structure, self.selection, self.seed + 1), change)
        one, other = (graphs.run(graphs.original, "the original", feeds[0], each) for each in (change, others))
        if _largest(self._differences(one, other)) > MARGIN * result.tolerance:
            return replace(result, ok=True, visible_ok=True)
        return before

    def _graphs(self, dtype: torch.dtype | None) -> _Graphs:
        if dtype not in self._made:
            self._made[dtype] = _Graphs(self, dtype)
        return self._made[dtype]

    def _differences(self, references: Leaves, outputs: Leaves) -> tuple[Difference, ...]:
        if len(references) != len(outputs):
            raise _Failed(f"the slim program has {len(outputs)} outputs where the original has {len(references)}")
        names = self.names if len(self.names) == len(outputs) else [f"output {at}" for at in range(len(outputs))]
        return differences(names, references, outputs, self.bounded)

    def _amplified(self, graphs: _Graphs, done: list[_Run], weights: _Weights, hidden: Values) -> float:
        """What changes of the size of rounding do to the outputs, times a safety factor."""
        size = PERTURBATION * (FINER if graphs.dtype is torch.float64 else 1.0)
        wide: Values = (lambda name, tensor: widest(tensor, graphs.dtype)) if graphs.dtype is not None else _same
        values = chained(weights.original, hidden, wide, perturb(size, self.seed))
        found = 0.0
        for leaves, reference, _ in done:
            if graphs.dtype is not None:
                leaves = [widest(each, graphs.dtype) if isinstance(each, torch.Tensor) else each for each in leaves]
            moved = graphs.run(graphs.masked, "the masked original", nudged(leaves, size, self.seed), values)
            found = max(found, _largest(self._differences(reference, moved)))
        return AMPLIFIED * found

    # -- reasons --------------------------------------------------------------------------------------------------

    def reason(self, result: Verification) -> str:
        """Why the last comparison, of which ``result`` is the outcome, proves nothing."""
        if result.max_error > result.tolerance:
            bad = max(result.outputs, key=lambda gap: gap.error)
            if self.poisoned and self._agrees_unpoisoned(result.tolerance):
                return f"output '{bad.name}' depends on what was removed: an operator reads it where no rule says so"
            text = bad.note or f"differs from the masked original by {bad.error:.2g} of its scale"
            return f"output '{bad.name}' {text}" + ("" if bad.note else f", allowed {result.tolerance:.2g}")
        if not any(gap.finite for gap in result.outputs):
            return "no output is a finite number on these inputs, so nothing was shown; give real inputs"
        return "the cut changes no output on these inputs, so nothing was shown; give real inputs"

    def _agrees_unpoisoned(self, allowed: float) -> bool:
        graphs, weights = self.last.graphs, self.last.weights
        for leaves, _, output in self.last.runs:
            reference = graphs.run(graphs.masked, "the masked original", leaves, weights.original)
            if _largest(self._differences(reference, output)) > allowed:
                return False
        return True


def _largest(gaps: Sequence[Difference]) -> float:
    return max((gap.error for gap in gaps), default=0.0)
