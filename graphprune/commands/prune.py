"""``graphprune prune MODEL -o OUT``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from graphprune.commands.calibration_options import (
    SYNTHETIC,
    Calib,
    CalibBatch,
    CalibLimit,
    Eval,
    Labels,
    MetricName,
    Preprocess,
    data_of,
    metric_of,
)
from graphprune.commands.choice_options import (
    CHOICE,
    CompensateName,
    CriterionName,
    Exclude,
    MinWidth,
    RecipeName,
    RoundTo,
    UnitNames,
)
from graphprune.commands.latency_options import (
    AllowSlower,
    BackendName,
    GateOption,
    MeasureSeconds,
    TargetName,
    Threads,
)
from graphprune.commands.options import (
    Debug,
    Dims,
    Json,
    NoVerify,
    Output,
    Quiet,
    Rpc,
    Seed,
    check_outputs,
    parse_dims,
    parse_ratios,
    parse_round_to,
    parse_share,
)
from graphprune.commands.result import show_result, write_report
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.errors import UsageError

__all__ = ["NAME", "Scope", "command"]

NAME = "prune"


class Scope(str, Enum):
    """Whether each group loses the same share, or groups compete; by itself a ratio is local, a target global."""

    AUTO = "auto"
    LOCAL = "local"
    GLOBAL = "global"


BUDGET = "Budget: a ratio, or targets"


def command(
    model: AnyModel,
    output: Output = None,
    input_: Input = None,
    ratio: Annotated[
        str | None,
        typer.Option("--ratio", metavar="R", help="Share of channels to remove: 0.5 or 50%.", rich_help_panel=BUDGET),
    ] = None,
    macs: Annotated[
        str | None,
        typer.Option("--macs", metavar="X", help="MACs to end at: 50% or 2.0G.", rich_help_panel=BUDGET),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option("--params", metavar="X", help="Parameters to end at: 50% or 5M.", rich_help_panel=BUDGET),
    ] = None,
    bytes_: Annotated[
        str | None,
        typer.Option("--bytes", metavar="X", help="Bytes to end at: 50% or 20M.", rich_help_panel=BUDGET),
    ] = None,
    peak: Annotated[
        str | None,
        typer.Option(
            "--peak",
            metavar="X",
            help="Bytes of activations alive at once to end at: 50% or 8MiB.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            "--latency",
            metavar="X",
            help="Measured latency to end at: 50% of the dense model's, or 8ms.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    recipe: RecipeName = None,
    criterion: CriterionName = None,
    compensate: CompensateName = None,
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            help="Each group loses the same share (local, for a ratio), or groups compete (global, for a target).",
            rich_help_panel=CHOICE,
        ),
    ] = Scope.AUTO,
    normalize: Annotated[
        str | None,
        typer.Option(
            "--normalize",
            metavar="HOW",
            help="How scores of competing groups compare: max, mean, sum, standard or none; macs or memory (divided by "
            "what a position costs); class (among groups of one kind); joined by / in this order: max/macs. Or losses: "
            "the least sum of scores is searched for.",
            show_default="what the recipe says",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            "--curves",
            metavar="FILE",
            help="How much of each group goes is what loses least by these curves (see graphprune sensitivity).",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    max_ratio: Annotated[
        str | None,
        typer.Option(
            "--max-ratio",
            metavar="R",
            help="What a group loses at most where groups compete.",
            show_default="95%",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    exclude: Exclude = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="PATTERN=R",
            help="Another ratio for the groups of such tensors or operators.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    units: UnitNames = None,
    calib: Calib = None,
    calib_limit: CalibLimit = None,
    calib_batch: CalibBatch = 16,
    eval_: Eval = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    metric: MetricName = None,
    backend: BackendName = "ort",
    target: TargetName = "cpu",
    threads: Threads = None,
    rpc: Rpc = None,
    measure_seconds: MeasureSeconds = None,
    gate: GateOption = None,
    allow_slower: AllowSlower = False,
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", "-p", metavar="PASSES", help="Passes to run, as 'lossless, prune{ratio=0.5}'."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="PLAN", help="Write what was decided here, as a lockfile.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the JSON answer here too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write the slim model.")] = False,
    no_verify: NoVerify = False,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Remove channels, heads and other positions from MODEL, and prove that the rest computes the same.

    What matters least goes, with all that is coupled with it; the slim model must equal the masked original.
    """
    targets = {"--macs": macs, "--params": params, "--bytes": bytes_, "--peak": peak, "--latency": latency}
    named = [option for option, value in targets.items() if value is not None]
    if ratio is not None and named:
        raise UsageError(f"--ratio and {named[0]} exclude each other: give one of them")
    if ratio is None and not named and pipeline is None and not group and not any("=" in text for text in units or ()):
        raise UsageError("how much? Give --ratio, --macs, --params, --bytes, --peak or --latency, or a --pipeline")
    if output is None and not dry_run:
        raise UsageError("where to? Give --output OUT, or --dry-run to write nothing")
    if recipe == "no-data" and calib is None and preprocess is not None:
        calib = SYNTHETIC
    inputs, measured = data_of(calib, calib_limit, calib_batch, eval_, preprocess, labels)
    judged = metric_of(metric)
    source = given(model, input_, seed)
    read = [Path(text) for text in (calib, eval_, labels, curves) if text is not None]
    check_outputs((None if source.torch else output, plan, report), model, *read)
    from graphprune.api import prune
    from graphprune.constraints import MAX_RATIO

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        result = prune(
            source.model,
            source.args,
            source.kwargs,
            output=None if dry_run else output,
            ratio=None if ratio is None else parse_share(ratio, "--ratio"),
            macs=macs,
            params=params,
            bytes=bytes_,
            peak=peak,
            latency=latency,
            recipe=recipe,  # type: ignore[arg-type]
            criterion=criterion,
            compensate=compensate,  # type: ignore[arg-type]
            calibration=inputs,
            evaluation=measured,
            metric=judged,
            scope=scope.value,
            normalize=normalize,
            curves=curves,
            max_ratio=MAX_RATIO if max_ratio is None else parse_share(max_ratio, "--max-ratio"),
            round_to=parse_round_to(round_to),
            exclude=tuple(exclude or ()),
            per_group=parse_ratios(group),
            min_width=min_width,
            units=",".join(units or ()) or (),
            seed=seed,
            dims=parse_dims(dims),
            pipeline=pipeline,
            plan_path=plan,
            verify=not no_verify,
            backend=backend,
            target=target,
            threads=threads,
            rpc=rpc,
            measure_seconds=measure_seconds,
            gate=gate,
            allow_slower=allow_slower,
            progress=progress,
        )
    document = result.to_dict()
    write_report(report, document)
    terminal.answer(document, lambda: show_result(terminal, result, str(model)))
