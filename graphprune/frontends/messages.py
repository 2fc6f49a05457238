"""The words in which a model is refused."""

from __future__ import annotations

from graphprune.errors import ModelError

__all__ = ["model_error", "root_cause"]

WHAT_LETTERS = 400


def model_error(where: str, what: str, remedy: str) -> ModelError:
    """Return the error `where: what; remedy`; a long `what` loses its middle rather than the remedy its place."""
    if len(what) > WHAT_LETTERS:
        what = f"{what[: WHAT_LETTERS // 2]} ... {what[-WHAT_LETTERS // 2 :]}"
    return ModelError(f"{where}: {what}; {remedy}")


def root_cause(error: BaseException) -> str:
    """Return the first failure behind an error as one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
