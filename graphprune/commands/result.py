"""How the result of pruning is shown: before and after, what was cut, how it was verified, where it went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.commands.terminal import Terminal
from graphprune.errors import ModelError
from graphprune.text import counted, scaled

if TYPE_CHECKING:
    from graphprune.result import Change, PruneResult

__all__ = ["RESULT_FIELDS", "show_result", "write_report"]

RESULT_FIELDS = (
    *("params", "macs", "bytes", "peak", "groups", "ceiling", "verified", "max_error", "undeclared", "notes"),
    *("seconds", "output", "evaluation", "latency"),
)
"""What the document of a result has beside its status; null in a refusal where it is not known."""


def show_result(terminal: Terminal, result: PruneResult, source: str) -> None:
    """Print a result for people."""
    rows = [
        _row("parameters", result.params),
        _row("MACs", result.macs),
        _row("bytes", result.bytes, "B"),
        _row("peak of activations", result.peak, "B"),
    ]
    terminal.table(("", "before", "after", "change"), rows, right=("before", "after", "change"))
    groups, ceiling = result.groups, result.ceiling
    reach = f"ceiling: {ceiling.params:.1%} of the parameters and {ceiling.macs:.1%} of the MACs"
    terminal.print(f"{result.status}: {groups.cut} of {counted(groups.total, 'group')} cut; {reach}")
    if result.undeclared:
        terminal.print(f"kept whole, because nobody declared them: {', '.join(result.undeclared)}")
    if result.verified and result.max_error is not None:
        reference = "the original" if result.lossless else "the masked original"
        terminal.print(f"verified: equal to {reference} (largest error {result.max_error:.1e})")
    elif result.verified is None:
        terminal.print("not verified")
    for line in result.evaluation.lines if result.evaluation is not None else ():
        terminal.print(line)
    if result.speed is not None:
        terminal.print(f"against the dense model: {result.speed.text}")
    for note in result.notes:
        terminal.print(f"note: {note}")
    spent = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in result.seconds.items() if seconds >= 0.005)
    terminal.print(f"seconds: {spent or 'none'}")
    if result.output is not None:
        terminal.print(f"{source} -> {result.output}")


def _row(name: str, change: Change, unit: str = "") -> tuple[str, str, str, str]:
    share = f"{change.after / change.before - 1:+.1%}" if change.before else ""
    return name, scaled(change.before, unit), scaled(change.after, unit), share


def write_report(path: Path | None, document: dict[str, Any]) -> None:
    """Write the JSON document of a result to a file, if one is named."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: the report cannot be written ({error.strerror})") from error
