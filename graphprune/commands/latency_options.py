"""Options about measured latency: where it is measured, for how long, and what happens to what is not faster."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "LATENCY",
    "AllowSlower",
    "BackendName",
    "GateOption",
    "MeasureSeconds",
    "TargetName",
    "Threads",
]

LATENCY = "Latency: measured where the model will run"

BackendName = Annotated[
    str,
    typer.Option("--backend", metavar="NAME", help="The runtime; see `graphprune backends`.", rich_help_panel=LATENCY),
]
TargetName = Annotated[
    str, typer.Option("--target", metavar="NAME", help="What it compiles for.", rich_help_panel=LATENCY)
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of the runtime.",
        show_default="one a core",
        rich_help_panel=LATENCY,
    ),
]
MeasureSeconds = Annotated[
    float | None,
    typer.Option(
        "--measure-seconds",
        metavar="S",
        min=0,
        help="For measuring operators; what is in the cache takes no time.",
        show_default="60",
        rich_help_panel=LATENCY,
    ),
]
GateOption = Annotated[
    bool | None,
    typer.Option(
        "--gate/--no-gate",
        help="Measure the slim model beside the dense one, and exit with 6 unless it is shown to be faster.",
        show_default="with --latency only",
        rich_help_panel=LATENCY,
    ),
]
AllowSlower = Annotated[
    bool,
    typer.Option("--allow-slower", help="Write what is not shown to be faster all the same.", rich_help_panel=LATENCY),
]
