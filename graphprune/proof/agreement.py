"""Agreement of two models that should be one: a model and its canonical form, what was proved and what is written.

The proof compares the canonical model with the cut one. That rewriting into canonical form, and what tidies up after
the cut, change nothing is seen by running the models before and after on the same random inputs.
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.proof.compare import compare
from graphprune.proof.run import Outputs, Runner
from graphprune.proof.variants import bounded_outputs, jumps
from graphprune.sample_inputs import input_specs, inputs_that_run
from graphprune.text import first_line

__all__ = ["AGREEMENT", "Incomparable", "disagreement"]

AGREEMENT = 1e-2
"""Scaled difference up to which two models agree: rewriting moves roundings, which a network may amplify; a wrong
rewriting changes outputs by much more."""


class Incomparable(Exception):
    """Two models of which outputs on random inputs tell nothing; the message says why."""


def disagreement(before: ir.Model, after: ir.Model, seed: int = 0) -> str | None:
    """How the outputs of two models with the same interface differ on random inputs; None if they agree.

    Raises:
        Incomparable: rounding can flip a choice in the first model, or it does not run on random inputs.
    """
    if jumps(before):
        raise Incomparable("its roundings or selections can flip at the last bit")
    found: list[Outputs] = []
    runner = Runner(before)
    try:
        feed = inputs_that_run(lambda feed: found.append(runner(feed)), input_specs(after), seed)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise Incomparable("it does not run on random inputs") from error
    try:
        results = Runner(after)(feed)
    except Exception as error:  # ONNX Runtime's errors share no base class
        return f"the rewritten model cannot be run ({first_line(error)})"
    names = [value.name or "" for value in after.graph.outputs]
    differences = compare(names, found[-1], results, bounded_outputs(after))
    worst = max(differences, key=lambda d: d.error, default=None)
    if worst is None or worst.error <= AGREEMENT:
        return None
    return f"output '{worst.name}' {worst.note or f'differs by {worst.error:.2g} of its scale'}"
