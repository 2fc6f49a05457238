"""What a command writes and where: its answer on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Terminal", "write_document"]

WIDE = 4096
"""Columns where nobody looks: a table in a pipe has one line a row, whatever its length."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """How a command speaks: as JSON, not at all (``quiet``), or to people."""

    json: bool = False
    quiet: bool = False

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str], None]]:
        """A function to name the stage of long work with; shown where somebody watches standard error."""
        if self.json or self.quiet or not sys.stderr.isatty():
            yield lambda stage: None
            return
        from rich.console import Console

        with Console(stderr=True, markup=False).status("starting") as status:
            yield lambda stage: status.update(stage)

    def answer(self, document: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Write ``document`` as JSON, or call ``show`` unless quiet."""
        if self.json:
            write_document(document)
        elif not self.quiet:
            show()

    def print(self, text: str = "") -> None:
        """A line of the answer, as it is."""
        sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """A line that is not part of the answer."""
        if not self.quiet:
            sys.stderr.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table of the answer; ``right`` names the columns of numbers."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        _console().print(table)


def write_document(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output; numbers that JSON does not have become null."""
    sys.stdout.write(json.dumps(_plain(document), indent=2) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    return str(value)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
