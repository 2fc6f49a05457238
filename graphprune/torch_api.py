"""The main jobs on PyTorch modules and exported programs; :mod:`graphprune.api` comes here with those.

A module is exported on example inputs, its graph is pruned and proved, and the result comes back as the module's own
class where that can be shown to compute the same, and as a graph that trains otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from graphprune import passes
from graphprune.clock import Clock, Progress
from graphprune.cost import CostModel
from graphprune.errors import GraphpruneError, UsageError, VerificationError
from graphprune.frontends.atomic import write_text
from graphprune.frontends.torch_back import Back, carry_optimizer, returned
from graphprune.frontends.torch_fingerprint import fingerprint
from graphprune.frontends.torch_patch import Patch
from graphprune.frontends.torch_program import TorchProgram, capture
from graphprune.ledger import ceiling, ledger
from graphprune.outcome import Figures, compared, group_count, plan_of, rehearsed
from graphprune.plan import Plan
from graphprune.proof.torch_proof import verify_program
from graphprune.proof.verification import Verification
from graphprune.recipes import calibrated
from graphprune.recovered import recovers, take_weights
from graphprune.result import Change, Inspection, PruneResult

__all__ = ["ModuleResult", "Torch", "Way", "inspect_module", "prune_module", "verify_module"]

Torch: TypeAlias = nn.Module | torch.export.ExportedProgram | TorchProgram
"""What these functions take: a module, what torch.export made of one, or what was captured already."""
Way = Literal["auto", "module", "graph"]


@dataclass(frozen=True)
class ModuleResult(PruneResult):
    """The outcome of pruning a PyTorch module.

    ``module`` is what trains and runs on: of the same class as the original (``way`` is ``"module"``), or the slim
    graph (``"graph"``), and then ``way_reason`` says why. ``patches`` are the numbers among its attributes that
    changed. ``model`` is the slim program that was proved.
    """

    module: nn.Module = None
    way: Literal["module", "graph"] = "graph"
    way_reason: str = ""
    patches: tuple[Patch, ...] = ()
    optimizer: torch.optim.Optimizer | None = None

    @property
    def report(self) -> dict[str, Any]:
        """All figures as JSON types."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`PruneResult.to_dict`."""
        return {**super().to_dict(), "way": self.way, "way_reason": self.way_reason}

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors), plan and manifest to ``folder``; :func:`graphprune.load` reads them."""
        from graphprune.storage import save

        return save(self, folder)

    def to_onnx(self, path: str | Path, **options: Any) -> Path:
        """Export the slim module on its example inputs, with the dynamic sizes that it was pruned with."""
        from graphprune.storage import to_onnx

        assert isinstance(self.model, TorchProgram)
        options = {"dynamic_shapes": self.model.dynamic_shapes, **options}
        return to_onnx(self.module, self.model.args, self.model.kwargs, path, **options)


def program_from(model: Torch, args: Any, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any = None) -> TorchProgram:
    """The program behind what a caller gave.

    Raises:
        UsageError: a module without example inputs.
    """
    if isinstance(model, TorchProgram):
        return model
    if args is not None and not isinstance(args, tuple):
        args = tuple(args) if isinstance(args, list) else (args,)
    if args is None and not kwargs and isinstance(model, nn.Module):
        raise UsageError(
            f"{type(model).__name__} needs example inputs: pass the tuple of its arguments, as prune(model, (x,), ...)"
        )
    return capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)


def prune_module(
    model: Torch,
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None,
    steps: Sequence[passes.Pass],
    *,
    output: str | Path | None = None,
    dynamic_shapes: Any = None,
    verify: bool = True,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    plan_path: str | Path | None = None,
    progress: Progress | None = None,
    way: Way = "auto",
    inplace: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    data: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> ModuleResult:
    """Run ``steps`` on a module; see :func:`graphprune.prune`. ``data`` is what passes find in their context.

    ``notes`` are for the user, beside those of the passes.
    """
    _check_options(way, output, plan_path, optimizer)
    clock = Clock(progress)
    with clock("export"):
        program = program_from(model, args, kwargs, dynamic_shapes)
    with clock("analyse"):
        before = Figures.of(program, dims)
    reports = [("canonicalize", passes.Report(False))]
    found = rehearsed(calibrated(data or {}, program, seed, dims), program, seed, dims)
    context = passes.Context(reports=reports, data=found, dims=dims, clock=clock, notes=[*notes])
    work = program.clone()
    steps = [step for step in steps if not isinstance(step, passes.Canonicalize)]
    try:
        passes.run_passes(work, steps, context)
        if verify and not any(isinstance(step, passes.Verify) for step in steps):
            passes.Verify(seed=seed)(work, context)
    except GraphpruneError as error:
        error.details = {**before.details(), "seconds": clock.seconds, **error.details}
        raise
    with clock("finish"):
        after = Figures.of(work, dims)
        plan = plan_of(context, fingerprint(program.module), steps)
    if plan_path is not None and plan is None:
        raise UsageError("no plan can say what this pipeline did: it changed more than a first cut leaves to say")
    with clock("compare"):
        evaluation, cautions = compared(program, work, context)
    with clock("way back"):
        back = _way_back(program, work, plan, way, seed)
        carried = None if optimizer is None else _carried(optimizer, program, back, plan)
    if inplace:
        _check_inplace(program, back)
    proofs = context.data.get("verify")
    assert proofs is None or isinstance(proofs, list)
    result = ModuleResult(
        status="pruned" if context.decisions else "unchanged",
        model=work if back.program is None else back.program,
        plan=plan,
        params=Change(before.params, after.params),
        macs=Change(before.macs, after.macs),
        bytes=Change(before.bytes, after.bytes),
        peak=Change(before.peak, after.peak),
        groups=group_count(before.groups, context),
        ceiling=before.ceiling,
        verified=None if not proofs else all(proof.ok for proof in proofs),
        max_error=max((proof.max_error for proof in proofs or ()), default=None),
        undeclared=before.undeclared,
        notes=(
            *(*program.notes, *(note for _, report in context.reports for note in report.notes)),
            *(*context.notes, *cautions),
        ),
        evaluation=evaluation,
        seconds=clock.seconds,
        output=None if output is None else Path(output),
        module=back.module,
        way=back.way,
        way_reason=back.reason,
        patches=back.patches,
        optimizer=carried,
    )
    with clock("write"):
        if output is not None:
            result.save(output)
        if plan_path is not None and plan is not None:
            write_text(plan.to_json(), plan_path)
    if inplace:  # last, so that a call that fails leaves the module as it was
        assert program.source is not None
        program.source.__dict__ = back.module.__dict__
        result = replace(result, module=program.source)
    return result


def _check_options(way: str, output: str | Path | None, plan_path: str | Path | None, optimizer: object) -> None:
    """Refuse, before any work is done, what makes no sense for a module.

    Raises:
        UsageError: an option is not what it has to be.
    """
    if way not in get_args(Way):
        raise UsageError(f"way '{way}' is not known: it is one of {', '.join(get_args(Way))}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer: a {type(optimizer).__name__} is not a torch.optim.Optimizer")
    if output is None:
        return
    folder = Path(output).absolute()
    if folder.suffix == ".onnx":
        raise UsageError(f"{output}: a module is stored as a folder; name one, and export with result.to_onnx(path)")
    if plan_path is not None and folder in (Path(plan_path).absolute(), *Path(plan_path).absolute().parents):
        raise UsageError(f"{plan_path}: the folder {output} is replaced as a whole and has the plan in it anyway")


def _way_back(program: TorchProgram, work: TorchProgram, plan: Plan | None, way: Way, seed: int) -> Back:
    """The slim module: of the original's class if that is possible and wanted."""
    structure = program.read()
    selection = None if plan is None or plan.prepare else plan.selection(structure)
    back = returned(program, work, structure, selection, seed=seed, way=way)
    if way == "module" and back.way != "module":
        raise VerificationError(f"the slim module cannot keep its class: {back.reason}; use way='graph' for the graph")
    return back


def _check_inplace(program: TorchProgram, back: Back) -> None:
    """Refuse to change a module that the slim network is not one of.

    Raises:
        UsageError: there is no module, or the slim network is of another class.
    """
    if program.source is None or back.way != "module":
        why = back.reason or "an exported program is no module"
        raise UsageError(f"inplace=True cannot be had: {why}; take result.module instead")


def _carried(
    optimizer: torch.optim.Optimizer, program: TorchProgram, back: Back, plan: Plan | None
) -> torch.optim.Optimizer:
    if program.source is None or plan is None:
        raise UsageError("the state of an optimizer can be carried over from a module only, and only past a plain cut")
    structure = program.read()
    return carry_optimizer(optimizer, program.source, back.module, structure, plan.selection(structure))


def verify_module(
    original: Torch,
    slim: Torch,
    plan: Plan,
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    runs: int = 2,
) -> Verification:
    """Prove that ``slim`` computes what ``original`` computes with the positions erased that ``plan`` removes."""
    for given in (original, slim):
        if isinstance(given, str | Path):
            raise UsageError(f"{given}: a module is compared with a module; load the slim one first (graphprune.load)")
    before, after = program_from(original, args, kwargs).clone(), program_from(slim, args, kwargs)
    if plan.prepare:
        context = passes.Context(reports=[("canonicalize", passes.Report(False))])
        passes.run_passes(before, passes.parse_pipeline(plan.prepare), context)
    structure = before.read()
    selection = plan.selection(structure)
    if recovers(plan):
        take_weights(before, after, structure, selection)
    return verify_program(before, after, structure, selection, seed=seed, runs=runs)


def inspect_module(
    model: Torch,
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    dynamic_shapes: Any = None,
    progress: Progress | None = None,
) -> Inspection:
    """What is coupled with what in a module; its weights are not read and may be on the ``meta`` device."""
    clock = Clock(progress)
    with clock("export"):
        program = program_from(model, args, kwargs, dynamic_shapes)
    with clock("analyse"):
        structure = program.read()
        cost = CostModel(structure, program.sizes(dims))
    return Inspection(structure, cost.total, ceiling(cost), tuple(ledger(cost)))
