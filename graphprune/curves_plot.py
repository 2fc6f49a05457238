"""Sensitivity curves as a picture: what is lost over what is removed, one line for each group."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.curves import Curves
from graphprune.frontends.figure_file import new_figure, save_figure

__all__ = ["draw"]

NAMED = 20
"""Lines up to which a legend can be read."""


def draw(path: Path, curves: Curves) -> Path | None:
    """Write the picture and return its path; None where matplotlib is not installed.

    Raises:
        ModelError: it cannot be written.
    """
    figure = new_figure(7, 4.5)
    if figure is None:
        return None
    colors: Any = importlib.import_module("matplotlib").colormaps["viridis"]
    axes = figure.subplots()
    shown = [curve for curve in curves.curves if curve.removed]
    for curve, place in zip(shown, np.linspace(0, 0.95, max(len(shown), 1)), strict=False):
        names = list(curve.groups)
        label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        shares = [100 * share for share in (0.0, *curve.removed)]
        axes.plot(shares, [0.0, *curve.loss], "o-", color=colors(place), label=label, linewidth=1, markersize=3)
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("positions removed, %")
    axes.set_ylabel(f"loss ({curves.about.get('distance', '')})")
    axes.grid(alpha=0.3)
    if len(shown) <= NAMED:
        axes.legend(fontsize="x-small", ncols=2)
    save_figure(figure, path)
    return path
