"""``graphprune sensitivity MODEL -o CURVES``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.commands.calibration_options import Calib, CalibBatch, CalibLimit, Preprocess, calibration_of
from graphprune.commands.options import Debug, Dims, Json, Quiet, Seed, check_outputs, parse_dims, parse_share
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.curves import Curves

__all__ = ["NAME", "Distance", "command"]

NAME = "sensitivity"
SHOWN = 3
"""Names of a bundle of groups that the table shows."""


class Distance(str, Enum):
    """How outputs are compared."""

    AUTO = "auto"
    KL = "kl"
    COSINE = "cosine"
    ERROR = "error"


def command(
    model: AnyModel,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the curves go, group by group; what is there already is not measured again.",
            show_default=False,
        ),
    ] = None,
    input_: Input = None,
    calib: Calib = None,
    calib_limit: CalibLimit = None,
    calib_batch: CalibBatch = 16,
    preprocess: Preprocess = None,
    removed: Annotated[
        str, typer.Option("--removed", metavar="R,...", help="Shares of each group to measure.")
    ] = "25%,50%,75%,90%",
    criterion: Annotated[
        str, typer.Option("--criterion", metavar="NAME", help="Which positions of a group go first; prune by the same.")
    ] = "l1",
    distance: Annotated[
        Distance,
        typer.Option(
            "--distance",
            help="How outputs are compared: kl of distributions over classes, cosine, or the squared relative error.",
        ),
    ] = Distance.AUTO,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="PASSES",
            help="Passes over each slim model before it is measured, such as compensate.",
            show_default=False,
        ),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="ROLE,...", help="Measure groups of these roles only.", show_default=False),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="Leave such groups out; curves do not cut them.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the curves (.png, .svg, .pdf).", show_default=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure everything anew.", show_default=False)] = False,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how much MODEL loses where each of its groups is cut: curves for `prune --curves FILE`.

    Every group is cut exactly at several shares and run on the calibration inputs. No labels are needed. What was
    measured stays if this is interrupted.
    """
    if output is None:
        raise UsageError("where to? Give --output FILE")
    shares = [parse_share(text.strip(), "--removed") for text in removed.split(",") if text.strip()]
    inputs = calibration_of(calib, calib_limit, calib_batch, preprocess)
    source = given(model, input_, seed)
    check_outputs((output, plot), model)
    from graphprune.measuring import sensitivity

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        curves = sensitivity(
            source.model,
            source.args,
            source.kwargs,
            calibration=inputs,
            criterion=criterion,
            removed=shares,
            distance=distance.value,
            after=after,
            units=tuple(" ".join(name.replace("-", " ").split()) for text in units or () for name in text.split(",")),
            exclude=tuple(exclude or ()),
            output=output,
            fresh=fresh,
            seed=seed,
            dims=parse_dims(dims),
            progress=progress,
        )
    drawn = None
    if plot is not None:
        from graphprune.curves_plot import draw

        drawn = draw(plot, curves)
        if drawn is None:
            terminal.note("graphprune: no plot: matplotlib is not installed; pip install 'graphprune[viz]'")
    document = {
        "status": "measured",
        "output": str(output),
        "plot": None if drawn is None else str(drawn),
        "about": curves.about,
        "curves": [
            {"groups": list(curve.groups), "removed": curve.removed, "loss": curve.loss} for curve in curves.curves
        ],
    }
    terminal.answer(document, lambda: _show(terminal, curves, shares, output))


def _show(terminal: Terminal, curves: Curves, shares: list[float], output: Path) -> None:
    data = curves.about["data"]
    terminal.print(f"loss ({curves.about['distance']}) on {data['samples']} samples from {data['source']}")
    columns = ["groups", "positions", *(f"-{share:.0%}" for share in sorted(shares))]
    rows = []
    for curve in curves.curves:
        names = list(curve.groups)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        losses = [f"{loss:.3g}" for loss in curve.loss]
        cells = losses if len(losses) == len(shares) else _placed(curve.removed, losses, sorted(shares))
        rows.append([", ".join(names[:SHOWN]) + more, str(sum(curve.groups.values())), *cells])
    terminal.table(columns, rows, right=columns[1:])
    for note in data["notes"]:
        terminal.print(f"note: {note}")
    terminal.print(f"{len(rows)} curves -> {output}")


def _placed(removed: tuple[float, ...], losses: list[str], shares: list[float]) -> list[str]:
    """The loss at each share asked for, of a group too small to lose all of them: that of the largest one not above."""
    found = []
    for share in shares:
        below = [loss for own, loss in zip(removed, losses, strict=True) if own <= share + 1e-9]
        found.append(below[-1] if below else "0")
    return found
