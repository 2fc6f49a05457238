"""``graphprune explain MODEL TENSOR[:DIM] [TENSOR[:DIM]]``."""

from __future__ import annotations

from typing import Annotated

import typer

from graphprune.commands.options import Debug, Json, Quiet
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal

__all__ = ["NAME", "command"]

NAME = "explain"


def command(
    model: AnyModel,
    tensor: Annotated[str, typer.Argument(metavar="TENSOR[:DIM]", help="What to explain.", show_default=False)],
    other: Annotated[
        str | None,
        typer.Argument(metavar="[TENSOR[:DIM]]", help="Explain how both are coupled.", show_default=False),
    ] = None,
    input_: Input = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say why a dimension of TENSOR is pinned or what goes together with it; or by which operators two are coupled."""
    from graphprune.api import inspect
    from graphprune.views import explain

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        source = given(model, input_)
        structure = inspect(source.model, source.args, source.kwargs, progress=progress).structure
    found = explain(structure, tensor, other)
    terminal.answer({"status": "explained", **found.to_dict()}, lambda: terminal.print(str(found)))
