"""``graphprune demo``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from graphprune.commands.options import Debug, Json, Quiet, check_output, parse_share
from graphprune.commands.terminal import Terminal

__all__ = ["NAME", "command"]

NAME = "demo"


def command(
    ratio: Annotated[str, typer.Option("--ratio", metavar="R", help="Share of channels to remove.")] = "0.5",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Keep the slim model here.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Prune the small trained network that ships with graphprune; compare accuracy, size and latency."""
    share = parse_share(ratio, "--ratio")
    if output is not None:
        check_output(output)
    from graphprune.demo import run

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        progress("pruning and measuring")
        found = run(share, output=output)

    def show() -> None:
        rows = [(row.name, *row.texts) for row in found.rows]
        terminal.table(("handwritten digits", "before", "after"), rows, right=("before", "after"))
        result = found.result
        terminal.print(f"verified: equal to the masked original (largest error {result.max_error:.1e})")
        if output is not None:
            terminal.print(f"the slim model: {output}")

    document = {
        **found.result.to_dict(),
        "output": None if output is None else str(output),
        "accuracy": {"before": found.accuracy[0], "after": found.accuracy[1]},
        "latency": {"before": asdict(found.latency[0]), "after": asdict(found.latency[1])},
        "images": found.images,
    }
    terminal.answer(document, show)
