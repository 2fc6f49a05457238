"""The command line run in this process, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Answer", "Run"]


class Answer(NamedTuple):
    """The exit code, and what was written to standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The answer as JSON."""
        return json.loads(self.out)  # type: ignore[no-any-return]


Run = Callable[..., Answer]
