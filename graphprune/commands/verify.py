"""``graphprune verify ORIGINAL SLIM --plan PLAN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.commands.options import Debug, Dims, Json, Quiet, Seed, parse_dims
from graphprune.commands.terminal import Terminal
from graphprune.errors import VerificationError

__all__ = ["NAME", "command"]

NAME = "verify"


def command(
    original: Annotated[
        Path, typer.Argument(metavar="ORIGINAL", help="The model that was pruned.", show_default=False)
    ],
    slim: Annotated[Path, typer.Argument(metavar="SLIM", help="What pruning made of it.", show_default=False)],
    plan: Annotated[Path, typer.Option("--plan", metavar="PLAN", help="What was cut.", show_default=False)],
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run SLIM and the masked ORIGINAL on the same random inputs in ONNX Runtime: they must agree."""
    from graphprune.api import verify
    from graphprune.plan import Plan
    from graphprune.recovered import recovers

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        found = verify(original, slim, plan, seed=seed, dims=parse_dims(dims), progress=progress)
    anew = recovers(Plan.load(plan))
    document = {
        "status": "verified",
        "verified": found.ok,
        "max_error": found.max_error,
        "max_abs_error": found.max_abs_error,
        "tolerance": found.tolerance,
        "visible": found.visible,
        "random_weights": found.random_weights,
        "unrounded": found.unrounded,
        "runs": found.runs,
        "seconds": found.seconds,
        "reason": found.reason,
        "weights": "its own" if anew else "the original's",
    }
    if not found.ok:
        raise VerificationError(f"{slim}: {found.reason}", {**document, "status": "refused"})

    def show() -> None:
        what = "with the removed positions erased"
        if anew:
            what += " and with its own weights, which were chosen anew after the cut and are not checked,"
        terminal.print(
            f"verified: {slim} is {original} {what} "
            f"(largest error {found.max_error:.1e}, tolerance {found.tolerance:.1e}, {found.runs} runs; "
            f"the cut changes outputs by {found.visible:.1e})"
        )

    terminal.answer(document, show)
