"""``graphprune inspect MODEL``."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.commands.options import Debug, Dims, Json, Quiet, parse_dims
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.text import counted, operator, scaled, shortened

if TYPE_CHECKING:
    from graphprune.result import Inspection

__all__ = ["NAME", "Format", "command"]

NAME = "inspect"

SHOWN = 3
ENTRIES = 12
"""Rows of the ledger that the table shows."""


class Format(str, Enum):
    """What the answer looks like."""

    TABLE = "table"
    JSON = "json"
    DOT = "dot"
    GRAPHML = "graphml"
    TEXT = "text"


def command(
    model: AnyModel,
    input_: Input = None,
    format_: Annotated[Format, typer.Option("--format", "-f", help="How to answer.")] = Format.TABLE,
    everything: Annotated[bool, typer.Option("--all", help="List all slices and the whole ledger.")] = False,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the groups of MODEL (what must be cut together), how much pruning can reach, and what locks the rest."""
    from graphprune.api import inspect

    terminal = Terminal(json or format_ is Format.JSON, quiet)
    with terminal.progress() as progress:
        source = given(model, input_)
        found = inspect(source.model, source.args, source.kwargs, dims=parse_dims(dims), progress=progress)

    def show() -> None:
        if format_ is Format.TABLE:
            _show(terminal, found, everything)
        else:
            terminal.print(_text(found, format_, everything).rstrip("\n"))

    terminal.answer(_document(found), show)


def _text(found: Inspection, format_: Format, everything: bool) -> str:
    from graphprune import views

    if format_ is Format.TEXT:
        return views.dump(found.structure, None) if everything else views.dump(found.structure)
    graph = views.to_networkx(found.structure)
    return views.to_dot(graph) if format_ is Format.DOT else views.to_graphml(graph)


def _document(found: Inspection) -> dict[str, Any]:
    structure = found.structure
    return {
        "status": "inspected",
        "params": found.counts.params,
        "macs": found.counts.macs,
        "bytes": found.counts.bytes,
        "ceiling": asdict(found.ceiling),
        "groups": [
            {
                "name": group.name,
                "role": group.role,
                "size": group.size,
                "exact": group.exact,
                "slices": [{"tensor": place.tensor, "dim": place.dim} for place in group.slices],
            }
            for group in structure.groups
        ],
        "ledger": [asdict(entry) for entry in found.ledger],
        "undeclared": dict(sorted(structure.undeclared.items())),
    }


def _show(terminal: Terminal, found: Inspection, everything: bool) -> None:
    structure = found.structure
    groups = [
        (
            group.name,
            group.role,
            str(group.size),
            "exact" if group.exact else "inexact",
            str(len(group.slices)),
            "  ".join(shortened([str(place) for place in group.slices], None if everything else SHOWN)),
        )
        for group in structure.groups
    ]
    counts, ceiling = found.counts, found.ceiling
    terminal.print(
        f"{scaled(counts.params)} parameters, {scaled(counts.macs)} MACs, {scaled(counts.bytes, 'B')}; "
        f"{counted(len(groups), 'group')}"
    )
    if groups:
        header = ("group", "role", "size", "removal", "slices", "tensors")
        terminal.table(header, groups, right=("size", "slices"))
    terminal.print(
        f"ceiling: pruning can reach {ceiling.params:.1%} of the parameters and {ceiling.macs:.1%} of the MACs"
    )
    entries = found.ledger if everything else found.ledger[:ENTRIES]
    if entries:
        columns = ("locked MACs", "of all", "locked parameters", "of all ", "by", "reason")
        rows = [
            (
                scaled(entry.macs),
                _share(entry.macs, counts.macs),
                scaled(entry.params),
                _share(entry.params, counts.params),
                f"{operator(entry.op)} '{entry.node}'" if entry.node else "",
                entry.reason,
            )
            for entry in entries
        ]
        terminal.table(columns, rows, right=columns[:4])
    if len(found.ledger) > len(entries):
        terminal.print(f"{len(found.ledger) - len(entries)} more in the ledger (--all)")
    for op, count in sorted(structure.undeclared.items()):
        terminal.print(f"undeclared: {op} ({counted(count, 'time')}); everything it touches is kept whole")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
