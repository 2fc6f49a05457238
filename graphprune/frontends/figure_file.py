"""Pictures by matplotlib, an optional extra, as files that are written whole or not at all."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

from graphprune.errors import ModelError
from graphprune.frontends.atomic import AtomicFiles

__all__ = ["new_figure", "save_figure"]


def new_figure(width: float, height: float) -> Any | None:
    """A figure of so many inches; None where matplotlib is not installed."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError:
        return None
    return figures.Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format that the name of its file says, or as PNG.

    Raises:
        ModelError: it cannot be written.
    """
    content = io.BytesIO()
    form = path.suffix[1:] or "png"
    figure.savefig(content, format=form, dpi=150, **({"metadata": {"Software": None}} if form == "png" else {}))
    try:
        with AtomicFiles(path.parent) as files:
            files.open(path.name).write(content.getvalue())
            files.commit()
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error
