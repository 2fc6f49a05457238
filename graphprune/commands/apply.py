"""``graphprune apply PLAN MODEL -o OUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.commands.options import (
    Debug,
    Dims,
    Json,
    NoVerify,
    Output,
    Quiet,
    Seed,
    check_outputs,
    parse_dims,
)
from graphprune.commands.result import show_result, write_report
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.errors import UsageError

__all__ = ["NAME", "command"]

NAME = "apply"


def command(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A lockfile that prune --plan wrote.", show_default=False)
    ],
    model: AnyModel,
    output: Output = None,
    input_: Input = None,
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="MODEL", help="The ONNX model that PLAN was made on, if it is another."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the JSON answer here too.")
    ] = None,
    no_verify: NoVerify = False,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cut from MODEL what PLAN says: the model it was made for, or another of the same structure."""
    if output is None:
        raise UsageError("where to? Give --output OUT")
    target = given(model, input_, seed)
    check_outputs((None if target.torch else output, report), model, plan)
    from graphprune.api import apply

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        result = apply(
            plan,
            target.model,
            target.args,
            target.kwargs,
            output=output,
            source=source,
            verify=not no_verify,
            seed=seed,
            dims=parse_dims(dims),
            progress=progress,
        )
    document = result.to_dict()
    write_report(report, document)
    terminal.answer(document, lambda: show_result(terminal, result, str(model)))
