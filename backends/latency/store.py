"""Measured times of single operators in the user's cache folder, one file for each machine, backend and threads.

A file is JSON: what it was measured on, and seconds by :func:`~.operators.signature`. It is read when it is opened,
and written whole while measuring goes on; what another process has written meanwhile is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphprune.backends.cache import cache_folder
from graphprune.errors import ModelError
from graphprune.frontends.atomic import write_text

__all__ = ["Store"]

FORMAT = 1


class Store:
    """Seconds by signature, for what ``about`` describes; equal descriptions share a file in ``folder``."""

    def __init__(self, about: Mapping[str, Any], folder: Path | None = None) -> None:
        self.about = dict(about)
        mark = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:16]
        self.path = (cache_folder() if folder is None else folder) / "latency" / f"{mark}.json"
        self.times = self._read()
        self._new = 0

    def put(self, signature: str, seconds: float) -> None:
        """Remember a time until :meth:`save`."""
        self.times[signature] = seconds
        self._new += 1

    def save(self) -> bool:
        """Write what is new; False where the folder cannot be written, which costs only time later on."""
        if not self._new:
            return True
        document = {"format": FORMAT, "about": self.about, "seconds": {**self._read(), **self.times}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", self.path)
        except (OSError, ModelError):
            return False
        self._new = 0
        return True

    def _read(self) -> dict[str, float]:
        """What the file has; nothing where there is none, or one that something else wrote."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] == FORMAT and document["about"] == json.loads(json.dumps(self.about)):
                return {str(name): float(seconds) for name, seconds in document["seconds"].items() if seconds > 0}
        return {}
