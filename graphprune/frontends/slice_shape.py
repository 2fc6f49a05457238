"""The shape of a Slice; ONNX's own inference can end the process over one of an odd shape."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.frontends.shape_notation import Dim

__all__ = ["sliced_dims"]


def sliced_dims(
    dims: Sequence[Dim],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int],
) -> list[Dim] | None:
    """Return the dimensions of a Slice of ``dims``; None where the operands do not fit each other."""
    rank = len(dims)
    axes = range(len(starts)) if axes is None else axes
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        return None
    result = list(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -rank <= axis < rank:
            return None
        extent = dims[axis]
        result[axis] = _length(extent, start, end, step) if isinstance(extent, int) and extent >= 0 else None
    return result


def _length(extent: int, start: int, end: int, step: int) -> int:
    """Return how many positions of ``extent`` are walked from ``start`` to ``end``, both clamped as ONNX does."""
    start, end = (bound + extent if bound < 0 else bound for bound in (start, end))
    if step > 0:
        start, end = (min(max(bound, 0), extent) for bound in (start, end))
    else:
        start, end = min(max(start, -1), extent - 1), min(max(end, -1), extent - 1)
    return max(0, -((start - end) // step))
