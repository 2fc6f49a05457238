"""``graphprune backends``."""

from __future__ import annotations

from graphprune.commands.options import Debug, Json, Quiet
from graphprune.commands.terminal import Terminal

__all__ = ["NAME", "command"]

NAME = "backends"


def command(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """List where models can be compiled for, and what would make the rest work."""
    from graphprune.backends.registry import SHORT, listed

    terminal = Terminal(json, quiet)
    found = list(listed())

    def show() -> None:
        rows = []
        for entry in found:
            short = "".join(f" ({name})" for name, full in SHORT.items() if full == entry.name)
            rows.append((entry.name + short, "", entry.availability.text))
            rows += [
                ("", target.name, "available" if target.available else f"needs: {target.remedy or 'another machine'}")
                for target in entry.targets
            ]
        terminal.table(("backend", "target", "state"), rows)

    terminal.answer({"status": "listed", "backends": [entry.to_dict() for entry in found]}, show)
