"""Where measured times and tuned schedules are kept from one call to the next."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["VARIABLE", "cache_folder"]

VARIABLE = "GRAPHPRUNE_CACHE"
"""The environment variable that names another folder than the user's own."""


def cache_folder() -> Path:
    """The folder of what was measured: the folder that the environment names, or the system's place for caches."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "graphprune"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphprune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphprune"
