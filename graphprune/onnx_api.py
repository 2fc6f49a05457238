"""The main jobs on ONNX models; :mod:`graphprune.api` comes here with those."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnx
import onnx_ir as ir

from graphprune import passes
from graphprune.clock import Clock, Progress
from graphprune.cost import CostModel
from graphprune.errors import GraphpruneError, UsageError, VerificationError
from graphprune.frontends.atomic import write_text
from graphprune.frontends.onnx_data import check_finite
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_fingerprint import fingerprint
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_write import save
from graphprune.frontends.program import program_of
from graphprune.ledger import ceiling, ledger
from graphprune.outcome import Figures, compared, group_count, plan_of, rehearsed
from graphprune.pace import Pace
from graphprune.passes.paced import PACE
from graphprune.passes.verify import Verify
from graphprune.plan import Plan
from graphprune.proof import Incomparable, Verification, disagreement
from graphprune.proof import verify as prove
from graphprune.recipes import calibrated
from graphprune.recovered import recovers, take_weights
from graphprune.result import Change, Inspection, PruneResult
from graphprune.sample_inputs import random_inputs

if TYPE_CHECKING:
    from graphprune.backends.measure import Comparison

__all__ = ["Gate", "PathLike", "Source", "inspect_model", "prune_model", "verify_model"]

PathLike: TypeAlias = str | os.PathLike[str]
Gate: TypeAlias = Callable[[ir.Model, ir.Model], "Comparison"]
Source: TypeAlias = PathLike | ir.Model | onnx.ModelProto


def prune_model(
    model: Source,
    output: PathLike | None,
    steps: Sequence[passes.Pass],
    *,
    verify: bool,
    seed: int,
    dims: Mapping[str, int] | None,
    plan_path: PathLike | None,
    progress: Progress | None,
    data: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
    gate: Gate | None = None,
) -> PruneResult:
    """Run ``steps`` on a model; see :func:`graphprune.prune`. ``data`` is what passes find in their context.

    ``notes`` are for the user, beside those of the passes. ``gate`` is given the model as it was read and the slim one
    before that is written, and raises where it is not fast enough.
    """
    if output is not None and plan_path is not None and Path(output).resolve() == Path(plan_path).resolve():
        raise UsageError(f"{output}: the plan would replace the slim model; name another file for one of them")
    clock = Clock(progress)
    with clock("load"):
        work = load(model)
        check_finite(work)
        loaded = work.clone()
        mark = fingerprint(work)
    found = rehearsed(calibrated(data or {}, work, seed, dims), work, seed, dims)
    context = passes.Context(data=found, dims=dims, clock=clock, notes=[*notes])
    canonical = bool(steps) and isinstance(steps[0], passes.Canonicalize)
    with clock("canonicalize"):
        (steps[0] if canonical else passes.Canonicalize())(work, context)
    with clock("analyse"):
        before = Figures.of(program_of(work), dims)
    try:
        passes.run_passes(work, steps[canonical:], context)
        if verify and not any(isinstance(step, Verify) for step in steps):
            Verify(seed=seed)(work, context)
    except GraphpruneError as error:
        error.details = {**before.details(), "seconds": clock.seconds, **error.details}
        raise
    with clock("finish"):
        passes.EliminateDeadNodes()(work, context)
        passes.MergeClones()(work, context)
        after = Figures.of(program_of(work), dims)
    unseen: tuple[str, ...] = ()
    if verify:
        with clock("verify"):
            unseen = _check_agreement(loaded, work, context, seed)
    names = [value.name or "" for value in loaded.graph.outputs]
    with clock("compare"):
        evaluation, cautions = compared(loaded, work, context, names)
    speed = None
    if gate is not None and context.decisions:
        with clock("gate"):
            try:
                speed = gate(loaded, work)
            except GraphpruneError as error:
                error.details = {**before.details(), "seconds": clock.seconds, **_measured(context), **error.details}
                raise
    plan = plan_of(context, mark, steps)
    if plan_path is not None and plan is None:
        raise UsageError("no plan can say what this pipeline did: it changed more than a first cut leaves to say")
    with clock("write"):
        if output is not None:
            save(work, output)
        if plan_path is not None and plan is not None:
            write_text(plan.to_json(), plan_path)
    proofs = context.data.get("verify")
    assert proofs is None or isinstance(proofs, list)
    return PruneResult(
        status="pruned" if context.decisions else "unchanged",
        model=work,
        plan=plan,
        params=Change(before.params, after.params),
        macs=Change(before.macs, after.macs),
        bytes=Change(before.bytes, after.bytes),
        peak=Change(before.peak, after.peak),
        groups=group_count(before.groups, context),
        ceiling=before.ceiling,
        verified=None if not proofs else all(proof.ok for proof in proofs),
        max_error=max((proof.max_error for proof in proofs or ()), default=None),
        lossless=bool(context.decisions) and all(decision.lossless for decision in context.decisions),
        undeclared=before.undeclared,
        notes=(*(note for _, report in context.reports for note in report.notes), *context.notes, *cautions, *unseen),
        evaluation=evaluation,
        pace=_pace(context),
        speed=speed,
        seconds=clock.seconds,
        output=None if output is None else Path(output),
    )


def _pace(context: passes.Context) -> Pace | None:
    found = context.data.get(PACE)
    return found if isinstance(found, Pace) else None


def _measured(context: passes.Context) -> dict[str, object]:
    found = _pace(context)
    return {} if found is None else {"latency": found.to_dict()}


def _check_agreement(loaded: ir.Model, work: ir.Model, context: passes.Context, seed: int) -> tuple[str, ...]:
    """What lies before and after the proved cuts must not change what is computed; notes where that was not seen.

    Raises:
        VerificationError: it does.
    """
    decisions = context.decisions
    stations = [loaded, *(model for decision in decisions for model in (decision.before, decision.after)), work]
    models = [model for model in stations if isinstance(model, ir.Model)]
    try:
        for before, after in zip(models[::2], models[1::2], strict=True):
            if problem := disagreement(before, after, seed):
                raise VerificationError(
                    f"rewriting the model changed it: {problem}; please report this, no output is kept"
                )
    except Incomparable as reason:
        return (f"the cut is proved; the rewriting around it was not compared with the file as it was read: {reason}",)
    return ()


def verify_model(
    original: Source,
    slim: Source,
    plan: Plan,
    *,
    seed: int = 0,
    runs: int = 2,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Prove that ``slim`` computes what ``original`` computes with the positions erased that ``plan`` removes."""
    clock = Clock(progress)
    with clock("load"):
        before, after = load(original), load(slim)
    with clock("canonicalize"):
        steps = passes.parse_pipeline(plan.prepare) if plan.prepare else []
        passes.run_passes(before, [passes.Canonicalize(), *steps], passes.Context())
    with clock("analyse"):
        structure = read(before)
        selection = plan.selection(structure)
        if recovers(plan):
            take_weights(before, after, structure, selection)
    inputs = [random_inputs(before, seed + run, dims) for run in range(runs)] if dims else None
    with clock("verify"):
        return prove(before, after, structure, selection, seed=seed, runs=runs, inputs=inputs)


def inspect_model(
    model: Source, *, dims: Mapping[str, int] | None = None, progress: Progress | None = None
) -> Inspection:
    """What is coupled with what in a model; its weights are not read."""
    clock = Clock(progress)
    with clock("load"):
        loaded = load(model)
    with clock("canonicalize"):
        passes.canonicalize(loaded)
    with clock("analyse"):
        structure = read(loaded)
        cost = CostModel(structure, concrete_sizes(loaded, dims))
    return Inspection(structure, cost.total, ceiling(cost), tuple(ledger(cost)))
