"""The main jobs as functions: prune, apply a plan, verify, inspect.

Models come as a path, an ``onnx.ModelProto``, an ``onnx_ir.Model``, or what PyTorch has (:mod:`graphprune.torch_api`);
none of them is ever modified.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx_ir as ir

from graphprune import passes
from graphprune.clock import Progress
from graphprune.clocked import Clocked
from graphprune.constraints import MAX_RATIO
from graphprune.curves import Curves
from graphprune.errors import UsageError
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_fingerprint import fingerprint
from graphprune.frontends.program import Host, is_torch, program_of
from graphprune.onnx_api import PathLike, Source, inspect_model, prune_model, verify_model
from graphprune.outcome import rehearsed
from graphprune.pace import STOPWATCH
from graphprune.passes.prune import Prune, cut
from graphprune.plan import Plan
from graphprune.proof import Verification
from graphprune.recipes import MADE_UP, Compensation, RecipeName, calibrated, recipe_for, steps_by
from graphprune.recovered import recovers
from graphprune.result import Change, GroupCount, Inspection, PruneResult
from graphprune.score.base import FUNCTION, Criterion, Judge
from graphprune.units import Units, parse_units, unit_texts

if TYPE_CHECKING:
    from torch import nn

    from graphprune.torch_api import Torch

__all__ = [
    "Change",
    "GroupCount",
    "Inspection",
    "PathLike",
    "PruneResult",
    "Source",
    "apply",
    "inspect",
    "load_module",
    "prune",
    "verify",
]


def prune(
    model: Source | Torch,
    args: PathLike | tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: PathLike | None = None,
    ratio: float | None = None,
    macs: str | float | None = None,
    params: str | float | None = None,
    bytes: str | float | None = None,
    peak: str | float | None = None,
    latency: str | float | None = None,
    criterion: str | Judge | Criterion | None = None,
    scope: Literal["auto", "local", "global"] = "auto",
    normalize: str | None = None,
    max_ratio: float = MAX_RATIO,
    curves: PathLike | Curves | None = None,
    recipe: RecipeName | None = None,
    calibration: Any = None,
    compensate: Compensation | None = None,
    loss: Callable[..., Any] | None = None,
    evaluation: Any = None,
    metric: Any = None,
    round_to: int | Literal["auto"] | None = None,
    exclude: str | Sequence[str] = (),
    per_group: Mapping[str, float] | None = None,
    min_width: int | None = None,
    units: Units = (),
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    pipeline: str | None = None,
    plan_path: PathLike | None = None,
    verify: bool = True,
    backend: str = "onnxruntime",
    target: str = "cpu",
    threads: int | None = None,
    rpc: str | None = None,
    measure_seconds: float | None = None,
    gate: bool | None = None,
    allow_slower: bool = False,
    progress: Progress | None = None,
    dynamic_shapes: Any = None,
    way: Literal["auto", "module", "graph"] = "auto",
    inplace: bool = False,
    optimizer: Any = None,
) -> Any:
    """Remove what matters least from ``model``, prove the result, and write it to ``output``.

    Returns a :class:`~graphprune.result.PruneResult`, and of a PyTorch module a
    :class:`~graphprune.torch_api.ModuleResult`, whose ``module`` trains.

    Args:
        model: what to prune: a path, an ``onnx.ModelProto``, an ``onnx_ir.Model``, an ``nn.Module``, or a
            ``torch.export.ExportedProgram``; not modified.
        args: of a module, the tuple of its example inputs; of an ONNX model, ``output``.
        kwargs: of a module, its example keyword inputs.
        output: where the slim model goes, written atomically: a file, or of a module a folder; by default it is only
            returned.
        ratio: share of positions to remove of each group (scope local) or of all (global).
        macs: multiply-accumulates to keep: ``"50%"``, ``"2.0G"``, or a number. ``params`` and ``bytes`` likewise.
        params: parameters to keep.
        bytes: bytes of weights to keep.
        peak: bytes of activations that may be alive at once (:mod:`graphprune.activations`).
        latency: what to keep of the latency, ``"50%"``, or a time, ``"8ms"``: measured on ``backend``
            (``docs/latency.md``). ONNX models only.
        criterion: how positions are judged: a name (``l1``, ``group-norm``, ... see ``docs/criteria.md``), perhaps with
            options (``l2:reduction=max``), or a function from an :class:`~graphprune.score.Evidence` to a dict that
            holds for each group of ``evidence.structure.groups`` one number a position, the higher the more it matters.
            By default what the recipe says.
        scope: whether each group loses the same share, or groups compete; ``auto`` is local for a ratio, global for
            a target.
        normalize: how scores of groups that compete are made comparable: ``max``, ``mean``, ``sum``, ``standard`` or
            ``none``; ``macs`` or ``memory`` divide them by what a position costs, and with ``class`` only groups of one
            kind compete; joined by ``/``, as in ``max/macs`` (:mod:`graphprune.score.normalize`).
        max_ratio: the share that a group loses at most where groups compete.
        curves: sensitivity curves (:func:`graphprune.sensitivity`), or a file of them: how much of each group goes is
            then what loses least by them within the budget; the criterion orders the positions of a group.
        recipe: criterion, normaliser and compensation together: ``weights``, ``no-data`` (on made-up inputs),
            ``calibrated`` or ``best``; by default the best that the data allow (:mod:`graphprune.recipes`).
        calibration: inputs like those that the network will see, without labels or with: an ``.npz``, an ``.npy``, a
            folder of pictures, arrays, an iterable, or ``"synthetic"`` (:func:`~.calibration.data.load_batches`).
        compensate: how the weights that are left make up for what is gone: ``least-squares`` or ``bias`` (on
            calibration inputs), ``merge`` (from weights alone), ``recalibrate`` (statistics only), ``none``.
        loss: of a module, what gradients are taken of: a function of its results and the targets of a batch.
        evaluation: inputs on which the slim model is compared with the dense one; those of ``calibration`` by default.
        metric: measured on both models: ``accuracy``, ``perplexity``, ..., or a function of outputs and targets.
        round_to: kept widths are multiples of this; ``"auto"``: of what suits the machine, measured for each kind of
            layer. That is the default for a latency.
        exclude: patterns of tensors, operators or groups that are left alone.
        per_group: pattern -> ratio of the groups that it matches.
        min_width: what each group keeps at least.
        units: only groups of these roles are cut: ``["head", "ffn"]``, or with a ratio each ``{"head": 0.25}``, or with
            bounds ``{"ffn": {"ratio": 0.5, "min": 64, "max_ratio": 0.75}}``. ``inspect`` shows the roles.
        seed: of the random criterion and of the inputs of the proof.
        dims: numbers for symbolic dimensions, for counting multiply-accumulates.
        pipeline: passes to run instead, such as ``"lossless, prune{ratio=0.5}"``; a ``prune`` without options takes
            those given here. ``canonicalize`` and, unless ``verify`` is False, ``verify`` are added where absent.
        plan_path: where the decision is written as a lockfile.
        verify: whether to prove the result.
        backend: where latency is measured, with ``target`` and ``threads`` as ``graphprune bench`` takes them.
        target: what the backend compiles for.
        threads: of the backend; one a core by default.
        rpc: ``HOST:PORT`` of TVM's RPC server on the device to measure on; with ``backend="tvm"``.
        measure_seconds: for measuring single operators, which is remembered (60 by default).
        gate: whether the slim model must be shown to be faster than the dense one; by default for a latency only, since
            it takes seconds and depends on the machine. ONNX models only.
        allow_slower: measure, but accept what is not faster.
        progress: called with the name of each stage as it begins.
        dynamic_shapes: of a module, what ``torch.export.export`` takes under that name.
        way: of a module, what comes back: its own class (``module``), the slim graph (``graph``), or the class where
            that can be shown to be right.
        inplace: let the module that was given become the slim one; only where it keeps its class.
        optimizer: an optimizer of the module, whose state the result carries over to the slim one.

    Raises:
        ModelError: the model cannot be read or the output not be written.
        UsageError: an option makes no sense.
        TargetError: nothing can be pruned, or the budget is out of reach. Nothing is written.
        VerificationError: the slim model is not the masked original. Nothing is written.
        SlowerError: the slim model is not shown to be faster. Nothing is written.
    """
    if ratio is not None and not isinstance(ratio, int | float):
        raise UsageError(f"ratio: {ratio!r} is not a number from 0 to 1")
    asked = Prune(
        ratio=ratio,
        macs=_amount(macs),
        params=_amount(params),
        bytes=_amount(bytes),
        peak=_amount(peak),
        latency=_amount(latency),
        scope=scope,
        max_ratio=max_ratio,
        curves=str(curves) if isinstance(curves, os.PathLike) else curves,
        round_to=("auto" if latency is not None else 1) if round_to is None else round_to,
        min_width=1 if min_width is None else min_width,
        exclude=_texts(exclude),
        group=tuple(f"{pattern}={share}" for pattern, share in (per_group or {}).items()),
        units=unit_texts(parse_units(units)),
        seed=seed,
    )
    if isinstance(calibration, Iterator):  # it may be read more than once
        calibration = list(calibration)
    data: dict[str, object] = {"calibration": calibration, "loss": loss, "evaluation": evaluation, "metric": metric}
    if criterion is not None and not isinstance(criterion, str):
        data["criterion"] = criterion
        criterion = FUNCTION
    notes: tuple[str, ...] = ()
    if pipeline is None:
        chosen = recipe_for(recipe, data=calibration is not None)
        if chosen.made_up and calibration is None:
            data["calibration"] = calibration = MADE_UP
        if chosen.measured and curves is None:
            from graphprune.measuring import host_of
            from graphprune.trials import with_curves

            if is_torch(model):  # exported once, for this and for pruning
                from graphprune.torch_api import program_from

                model, args, kwargs = program_from(model, _inputs(args), kwargs, dynamic_shapes), None, None
            host = host_of(model, None, None, None)
            data = rehearsed(calibrated(data, host, seed, dims), host, seed, dims)
            asked, notes = with_curves(
                host,
                asked,
                lambda way: steps_by(chosen, way, criterion, normalize, compensate),
                data,
                criterion=data.get("criterion", criterion or chosen.criterion),
                seed=seed,
                dims=dims,
                progress=progress,
            )
        steps = steps_by(chosen, asked, criterion, normalize, compensate)
    else:
        if recipe is not None or compensate is not None:
            raise UsageError("a pipeline says all that is done; write compensate in it, and give no recipe beside it")
        said: dict[str, Any] = {"criterion": criterion, "normalize": normalize}
        asked = dataclasses.replace(asked, **{name: value for name, value in said.items() if value is not None})
        steps = _filled(passes.parse_pipeline(pipeline), asked)
    if metric is not None and evaluation is None and calibration is None:
        raise UsageError("a metric is measured on data: give evaluation=..., or calibration=... with labels")
    clocked = Clocked(backend, target, threads, dims, seed, measure_seconds, progress, rpc)
    gated = any(isinstance(step, Prune) and step.latency for step in steps) if gate is None else gate
    data.update(clocked.data(steps, gated, settled=gate is False))
    if allow_slower and not (gated or STOPWATCH in data):
        raise UsageError("allow_slower (--allow-slower) is for the gate, which is not asked for: --gate, or a latency")
    if is_torch(model):
        if gated or STOPWATCH in data:
            raise UsageError("latency is measured of ONNX models: export the module first (graphprune.storage.to_onnx)")
        from graphprune.torch_api import prune_module

        return prune_module(
            model,
            _inputs(args),
            kwargs,
            steps,
            output=None if output is None else Path(output),
            dynamic_shapes=dynamic_shapes,
            verify=verify,
            seed=seed,
            dims=dims,
            plan_path=None if plan_path is None else Path(plan_path),
            progress=progress,
            way=way,
            inplace=inplace,
            optimizer=optimizer,
            data=data,
            notes=notes,
        )
    return prune_model(
        _onnx(model),
        _target(args, output),
        steps,
        verify=verify,
        seed=seed,
        dims=dims,
        plan_path=plan_path,
        progress=progress,
        data=data,
        notes=notes,
        gate=clocked.gate(allow_slower) if gated else None,
    )


def apply(
    plan: Plan | PathLike,
    model: Source | Torch,
    args: PathLike | tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: PathLike | None = None,
    source: Source | Torch | tuple[Torch, tuple[Any, ...]] | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    dynamic_shapes: Any = None,
    way: Literal["auto", "module", "graph"] = "auto",
) -> Any:
    """Carry out on ``model`` what ``plan`` decided, prove it, and write it to ``output``; returns as :func:`prune`.

    A plan may have been made on the ONNX export of a module and be applied to the module, or the other way round.
    ``source`` is then what it was made on (a module together with its example inputs); it is needed where an exporter
    renamed, transposed or folded weights.

    Raises:
        UsageError: the plan does not fit the model.
        ModelError, VerificationError: as for :func:`prune`.
    """
    from graphprune.sides import plan_for_model, plan_for_module

    decided = plan if isinstance(plan, Plan) else Plan.load(plan)
    origin = _origin(source)
    if is_torch(model):
        from graphprune.torch_api import program_from, prune_module

        program = program_from(model, _inputs(args), kwargs, dynamic_shapes)
        decided = plan_for_module(decided, program, origin)
        return prune_module(
            program,
            None,
            None,
            [*_preparation(decided), _Apply(decided)],
            output=None if output is None else Path(output),
            verify=verify,
            seed=seed,
            dims=dims,
            progress=progress,
            way=way,
        )
    target, loaded = _target(args, output), load(_onnx(model))
    if origin is not None or fingerprint(loaded) != decided.fingerprint:
        decided = plan_for_model(decided, loaded, origin)
    return prune_model(
        loaded,
        target,
        [*_preparation(decided), _Apply(decided)],
        verify=verify,
        seed=seed,
        dims=dims,
        plan_path=None,
        progress=progress,
    )


def _origin(source: Any) -> Any:
    """What a plan was made on, modules as programs."""
    if isinstance(source, tuple) or is_torch(source):
        from torch import nn

        from graphprune.torch_api import program_from

        module, args = source if isinstance(source, tuple) else (source, None)
        if args is None and isinstance(module, nn.Module):
            raise UsageError("source: a module comes with its example inputs, as source=(model, (x,))")
        return program_from(module, args, None)
    return None if source is None else _onnx(source)


def verify(
    original: Source | Torch,
    slim: Source | Torch,
    plan: Plan | PathLike,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    runs: int = 2,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Prove that ``slim`` computes what ``original`` computes with the positions erased that ``plan`` removes.

    Where the plan's pipeline chose weights anew after the cut, the original gets those first, at the positions that
    are kept: then the proof is about the graph, and how near it is to the original's own outputs is another question.
    Modules need the example inputs ``args`` and ``kwargs``.
    """
    decided = plan if isinstance(plan, Plan) else Plan.load(plan)
    if is_torch(original) or is_torch(slim):
        from graphprune.torch_api import verify_module

        return verify_module(original, slim, decided, args, kwargs, seed=seed, runs=runs)
    return verify_model(_onnx(original), _onnx(slim), decided, seed=seed, runs=runs, dims=dims, progress=progress)


def inspect(
    model: Source | Torch,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    dynamic_shapes: Any = None,
) -> Inspection:
    """What is coupled with what in ``model``, how much pruning can reach, and which operators lock the rest.

    A module needs example inputs; its weights are not read, so it may be on the ``meta`` device.
    """
    if is_torch(model):
        from graphprune.torch_api import inspect_module

        return inspect_module(model, args, kwargs, dims=dims, dynamic_shapes=dynamic_shapes, progress=progress)
    return inspect_model(_onnx(model), dims=dims, progress=progress)


def load_module(
    folder: PathLike, model: nn.Module | Callable[[], nn.Module] | None = None, *, map_location: str = "cpu"
) -> nn.Module:
    """The pruned module that :meth:`~graphprune.torch_api.ModuleResult.save` stored in ``folder``.

    Without ``model`` that is the slim graph, which needs no other code. ``model`` is the unpruned module, or a function
    that makes it: then its own class comes back, cut as the stored plan says.

    Raises:
        ModelError: no such folder, a damaged one, or one that was stored from another model.
        UsageError: the stored module did not keep its class.
    """
    from graphprune.storage import load

    return load(folder, model, map_location=map_location)


def _inputs(args: PathLike | tuple[Any, ...] | None) -> Any:
    if isinstance(args, str | os.PathLike):
        raise UsageError("a module is pruned on example inputs: prune(model, (x,), output=...)")
    return args


def _target(args: PathLike | tuple[Any, ...] | None, output: PathLike | None) -> PathLike | None:
    if args is None or output is not None:
        return output
    if not isinstance(args, str | os.PathLike):
        raise UsageError("an ONNX model takes no example inputs: prune(model, output)")
    return args


def _onnx(model: Source | Torch) -> Source:
    if isinstance(model, str | os.PathLike | ir.Model | onnx.ModelProto):
        return model
    raise UsageError(f"a {type(model).__name__} is neither an ONNX model nor a PyTorch module")


_ONLY_THE_CUT = "weights were chosen anew where this plan was made; a plan stores the cut alone, which was applied"


@dataclasses.dataclass(frozen=True)
class _Apply(passes.Pass):
    """Cut what a plan says."""

    plan: Plan
    name = "apply"
    any_host = True

    def run(self, model: Host, context: passes.Context) -> passes.Report:
        """Cut."""
        with context.clock("analyse"):
            structure = program_of(model).read()
            selection = self.plan.selection(structure)
        with context.clock("cut"):
            changed = cut(model, context, structure, selection, self.name)
        notes = (_ONLY_THE_CUT,) if recovers(self.plan) else ()
        return passes.Report(changed, notes=notes)


def _preparation(plan: Plan) -> list[passes.Pass]:
    """The passes that a plan wants to have run before its cuts."""
    return passes.parse_pipeline(plan.prepare) if plan.prepare else []


def _amount(value: str | float | None) -> str | None:
    return None if value is None else str(value)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _filled(steps: Sequence[passes.Pass], asked: Prune) -> list[passes.Pass]:
    """A ``prune`` that says no budget takes the options of the call."""
    if asked != Prune(seed=asked.seed) and Prune() not in steps:
        raise UsageError("the pipeline has no 'prune' without options, so those given beside it have no effect")
    return [asked if step == Prune() else step for step in steps]
