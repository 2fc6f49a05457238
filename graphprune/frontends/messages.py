"""One-line messages about models, whatever the names in them hold."""

from __future__ import annotations

from graphprune.errors import ModelError

__all__ = ["model_error", "root_cause"]

MESSAGE_LETTERS = 400


def model_error(where: str, what: str, remedy: str) -> ModelError:
    """Return the error `where: what; remedy`, printable and of bounded length although it quotes names from a model."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in f"{where}: {what}")
    if len(shown) > MESSAGE_LETTERS:
        shown = f"{shown[: MESSAGE_LETTERS // 2]} ... {shown[-MESSAGE_LETTERS // 2 :]}"
    return ModelError(f"{shown}; {remedy}")


def root_cause(error: BaseException) -> str:
    """Return the first failure behind an error as one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
