"""The errors that graphprune raises, and the exit code each one ends the command line with.

::

    GraphpruneError          1   (never raised itself; anything else that reaches the top is a bug)
    ├── UsageError           2   an option, selector or plan that makes no sense
    ├── ModelError           3   the input cannot be read, or is not a valid model
    ├── TargetError          4   nothing to prune, or the budget is out of reach
    ├── VerificationError    5   the slim graph does not compute what the masked original computes
    └── SlowerError          6   the slim model was measured, and is not shown to be faster

A message is one line: what is wrong, where (file, node), why, and what to do about it. It stays one printable line of
bounded length when it quotes names from a damaged model, or the words of a library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["GraphpruneError", "ModelError", "SlowerError", "TargetError", "UsageError", "VerificationError"]

MESSAGE_LETTERS = 900


class GraphpruneError(Exception):
    """Base of every error that a user can cause and mend.

    ``details`` are figures that were known when it happened, in the words of the command line's JSON.
    """

    exit_code = 1

    def __init__(self, message: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(_line(message))
        self.details: Mapping[str, Any] = details or {}


class UsageError(GraphpruneError):
    """An option, selector, pipeline or plan that cannot be carried out as written."""

    exit_code = 2


class ModelError(GraphpruneError):
    """The model cannot be read, is invalid, or cannot be written."""

    exit_code = 3


class TargetError(GraphpruneError):
    """Nothing can be pruned, or the requested budget is out of reach; says how far it got."""

    exit_code = 4


class VerificationError(GraphpruneError):
    """The slim graph differs from the masked original; the output is not kept."""

    exit_code = 5


class SlowerError(GraphpruneError):
    """The slim model is not shown to be faster than the original where it will run."""

    exit_code = 6


def _line(message: str) -> str:
    """Return a message without control characters, its middle left out where it is beyond all reading."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(message.split()))
    return (
        line if len(line) <= MESSAGE_LETTERS else f"{line[: MESSAGE_LETTERS // 2]} ... {line[-MESSAGE_LETTERS // 2 :]}"
    )
