"""``graphprune sweep MODEL --macs 80%,60%,40% -o DIR``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.commands.calibration_options import (
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
    CompensateName,
    CriterionName,
    Exclude,
    MinWidth,
    RecipeName,
    RoundTo,
    UnitNames,
)
from graphprune.commands.options import (
    Debug,
    Dims,
    Json,
    NoVerify,
    Quiet,
    Seed,
    parse_dims,
    parse_round_to,
    parse_share,
)
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.errors import UsageError
from graphprune.text import scaled

if TYPE_CHECKING:
    from graphprune.sweep import Sweep
    from graphprune.sweep_points import Point

__all__ = ["NAME", "command"]

NAME = "sweep"
BUDGET = "Budgets: a list of one of these"


def command(
    model: AnyModel,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder for slim models and tables.", show_default=False
        ),
    ] = None,
    input_: Input = None,
    macs: Annotated[
        str | None,
        typer.Option("--macs", metavar="X,...", help="MACs to end at: 80%,60%,40%.", rich_help_panel=BUDGET),
    ] = None,
    params: Annotated[
        str | None, typer.Option("--params", metavar="X,...", help="Parameters to end at.", rich_help_panel=BUDGET)
    ] = None,
    bytes_: Annotated[
        str | None, typer.Option("--bytes", metavar="X,...", help="Bytes to end at.", rich_help_panel=BUDGET)
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option("--ratio", metavar="R,...", help="Shares of channels to remove.", rich_help_panel=BUDGET),
    ] = None,
    calib: Calib = None,
    calib_limit: CalibLimit = None,
    calib_batch: CalibBatch = 16,
    eval_: Eval = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    metric: MetricName = None,
    recipe: RecipeName = None,
    criterion: CriterionName = None,
    compensate: CompensateName = None,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    exclude: Exclude = None,
    units: UnitNames = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever points the folder has.", show_default=False)
    ] = False,
    no_verify: NoVerify = False,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Prune MODEL to several budgets, and show what each of them costs.

    Slim models, sweep.json, sweep.csv and a plot go to DIR; budgets that are there already are not pruned again.
    """
    lists = {"macs": macs, "params": params, "bytes": bytes_, "ratio": ratio}
    named = [f"--{name}" for name, text in lists.items() if text is not None]
    if len(named) != 1:
        said = "which budgets? Give" if not named else f"{named[0]} and {named[1]} exclude each other: give"
        raise UsageError(f"{said} one list, as --macs 80%,60%,40%")
    if output is None:
        raise UsageError("where to? Give --output DIR")
    budgets: dict[str, Any] = {name: _list(name, text) for name, text in lists.items() if text is not None}
    inputs, measured = data_of(calib, calib_limit, calib_batch, eval_, preprocess, labels)
    chosen: dict[str, Any] = {
        "recipe": recipe,
        "criterion": criterion,
        "compensate": compensate,
        "round_to": parse_round_to(round_to),
        "min_width": min_width,
        "exclude": tuple(exclude or ()) or None,
        "units": ",".join(units or ()) or None,
    }
    judged = metric_of(metric)
    source = given(model, input_, seed)
    from graphprune.sweep import sweep

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        found = sweep(
            source.model,
            source.args,
            source.kwargs,
            output=output,
            **budgets,
            calibration=inputs,
            evaluation=measured,
            metric=judged,
            fresh=fresh,
            verify=not no_verify,
            seed=seed,
            dims=parse_dims(dims),
            progress=progress,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    terminal.answer({"status": "swept", **found.to_dict()}, lambda: _show(terminal, found))


def _list(name: str, text: str) -> list[str | float]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"--{name}: '{text}' names no budget; give a list, as 80%,60%,40%")
    return [parse_share(word, "--ratio") for word in words] if name == "ratio" else list(words)


def _show(terminal: Terminal, found: Sweep) -> None:
    terminal.print(f"measured on {found.data['samples']} samples from {found.data['source']}")
    metric = next((point.evaluation["metric"] for point in found.points if point.evaluation), None)
    name = None if metric is None else str(metric["name"])
    columns = ["budget", "MACs", "", "parameters", "", "size", "cosine", "agreement"]
    columns += [] if name is None else [name]
    rows = [_dense(found.dense, name)]
    rows += [_row(point, name) for point in found.points]
    right = [column for column in columns if column != "budget"]
    terminal.table((*columns, "Pareto"), rows, right=right)
    if metric is not None and metric["origin"] is not None:
        terminal.print(f"{name} of the dense model after the same recovery: {metric['origin']:.4g}")
    for point in found.points:
        if point.status == "refused":
            terminal.print(f"{point.kind} {point.amount}: {point.message}")
    for note in found.notes:
        terminal.print(f"note: {note}")
    had = len(found.points) - found.made
    terminal.print(f"{found.made} made, {had} there already -> {found.folder}")


def _dense(dense: Mapping[str, Any], name: str | None) -> list[str]:
    if not dense:
        return ["dense"]
    metric = [] if name is None else [_number(dense["metric"], name)]
    size = scaled(dense["bytes"], "B")
    return ["dense", scaled(dense["macs"]), "", scaled(dense["params"]), "", size, "", "", *metric, ""]


def _row(point: Point, name: str | None) -> list[str]:
    budget = f"{point.kind} {point.amount}"
    if point.evaluation is None:
        return [budget, "out of reach"]
    agreement, cosine = point.likeness("agreement"), point.likeness("cosine")
    metric = [] if name is None else [_number(point.evaluation["metric"]["slim"], name)]
    return [
        budget,
        scaled(point.macs[1]),
        _change(point.macs),
        scaled(point.params[1]),
        _change(point.params),
        scaled(point.bytes[1], "B"),
        "" if cosine is None else f"{cosine:.4f}",
        "" if agreement is None else f"{agreement:.1%}",
        *metric,
        "yes" if point.pareto else "",
    ]


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[1] / pair[0] - 1:+.1%}" if pair[0] else ""


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "none"
    return f"{value:.2%}" if name in ("accuracy", "top5") else f"{value:.4g}"
