"""The points of a sweep as a picture: what is left of the costs, and what is left of the quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphprune.frontends.figure_file import new_figure, save_figure
from graphprune.sweep_points import Point

__all__ = ["draw"]

COSTS = {"macs": "multiply-accumulates", "params": "parameters", "bytes": "bytes", "ratio": "multiply-accumulates"}


def draw(path: Path, points: Sequence[Point]) -> Path | None:
    """Write the picture and return its path; None where matplotlib is not installed, or there is nothing to draw.

    Raises:
        ModelError: it cannot be written.
    """
    shown = sorted((point for point in points if point.quality is not None), key=lambda point: point.cost)
    if not shown:
        return None
    figure = new_figure(6, 4)
    if figure is None:
        return None
    name = shown[0].quality[0]  # type: ignore[index]
    kind = shown[0].kind
    before = max(1, getattr(shown[0], "macs" if kind == "ratio" else kind)[0])
    alike = [point for point in shown if point.quality is not None and (point.quality[0], point.kind) == (name, kind)]
    axes = figure.subplots()
    spots = [(100 * point.cost / before, point.quality[1]) for point in alike if point.quality is not None]
    best = [spot for spot, point in zip(spots, alike, strict=True) if point.pareto]
    axes.plot(*zip(*best, strict=True), "-", color="tab:blue", label="Pareto front")
    axes.plot(*zip(*spots, strict=True), "o", color="tab:blue")
    for spot, point in zip(spots, alike, strict=True):
        axes.annotate(point.amount, spot, textcoords="offset points", xytext=(4, -10), fontsize="small")
    metric = (alike[0].evaluation or {}).get("metric")
    dense = metric["dense"] if metric else 1.0
    if dense is not None:
        axes.axhline(dense, color="gray", linestyle="--", label="dense")
    if metric and metric["origin"] is not None:
        axes.axhline(metric["origin"], color="gray", linestyle=":", label="dense after the same recovery")
    axes.set_xlabel(f"{COSTS[kind]} left, %")
    axes.set_ylabel(
        {"agreement": "agreement with the dense model", "cosine": "cosine to the dense outputs"}.get(name, name)
    )
    axes.set_xlim(0, 106)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
    return path
