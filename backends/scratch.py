"""A folder for what a backend compiles before it is stored."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

__all__ = ["Scratch"]


class Scratch:
    """A folder that is there as long as this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="graphprune-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
