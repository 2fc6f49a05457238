"""Options that say what is chosen and how, which several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["CHOICE", "CompensateName", "CriterionName", "Exclude", "MinWidth", "RecipeName", "RoundTo", "UnitNames"]

CHOICE = "Choice"

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Criterion, normaliser and compensation together: weights, no-data (on made-up inputs), calibrated or "
        "best; by default the best that the data allow.",
        show_default=False,
        rich_help_panel=CHOICE,
    ),
]
CriterionName = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="How positions are judged: l1, l2, group-norm, obs, flap, ... (docs/criteria.md lists all).",
        show_default="what the recipe says",
        rich_help_panel=CHOICE,
    ),
]
CompensateName = Annotated[
    str | None,
    typer.Option(
        "--compensate",
        metavar="METHOD",
        help="How the weights that are left make up for what is gone: least-squares, bias, recalibrate (on "
        "calibration inputs), merge (from weights alone) or none.",
        show_default="what the recipe says",
        rich_help_panel=CHOICE,
    ),
]
RoundTo = Annotated[
    str | None,
    typer.Option(
        "--round-to",
        metavar="N",
        help="Keep multiples of N; auto: of what suits the machine, which is measured.",
        rich_help_panel=CHOICE,
    ),
]
MinWidth = Annotated[
    int | None,
    typer.Option("--min-width", metavar="N", min=1, help="Keep at least N of each group.", rich_help_panel=CHOICE),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Leave the groups of such tensors or operators alone.",
        rich_help_panel=CHOICE,
    ),
]
UnitNames = Annotated[
    list[str] | None,
    typer.Option(
        "--units",
        metavar="ROLE[=R],...",
        help="Cut groups of these roles only, each by a ratio of its own: channel,head=0.25,ffn=0.5.",
        rich_help_panel=CHOICE,
    ),
]
