"""How far two lists of outputs are apart, on a scale on which rounding has a known size.

The error of an element is divided by the largest magnitude of what it is computed together with: of its whole output,
or, where that is smaller, of its slice along dimension 1 or the last, provided that the slice has enough elements for
its maximum to be its scale (a detector puts coordinates in hundreds beside scores in thousandths); but not of less than
:data:`LEAST` of the whole output, since small slices may be differences of large ones.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.rules.call import Axes, Call
from graphprune.structure import Structure

__all__ = ["Difference", "compare", "error_growth", "worst"]

SLICE = 64
"""Elements from which a slice has a scale of its own."""

LEAST = 2.0**-10

SAFETY = 8.0
"""How much larger than the scale of an output the numbers on the way to it may be."""

UNIT_ROUNDOFF = 2.0**-24
AVERAGES = frozenset(
    {
        "onnx.GlobalAveragePool",
        "onnx.ReduceMean",
        "onnx.ReduceSum",
        "aten.adaptive_avg_pool1d",
        "aten.adaptive_avg_pool2d",
        "aten.adaptive_avg_pool3d",
        "aten.mean",
        "aten.std",
        "aten.sum",
        "aten.var",
    }
)
"""Operators that sum without multiplying."""

FLOAT_SUMMANDS = 64
"""Summands assumed for an axis of symbolic size."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output of a model differs from its reference.

    ``error`` is scaled, ``absolute`` is not; ``finite`` tells whether the reference has any finite number.
    """

    name: str
    error: float
    absolute: float
    finite: bool
    note: str = ""


def error_growth(structure: Structure, results: dict[str, tuple[str, ...]]) -> float:
    """The relative rounding error to be expected at the outputs of a network in float32.

    Each summand is rounded once, by at most the unit roundoff ``u`` of a number on the scale of the result, and the
    roundings are independent: after ``N`` of them the error is a random walk of length ``u * sqrt(N)`` (Higham and
    Mary, *A new approach to probabilistic rounding error analysis*, 2019). ``N`` adds up, over all operators, the
    number of terms that one result sums; counting parallel branches too only makes the bound wider. :data:`SAFETY`
    allows for intermediate numbers that are larger than the output.

    ``results`` maps node names to the names of their outputs.
    """
    roundings = 0.0
    for call in structure.calls:
        roundings += 1
        outside = [axis for name in results.get(call.node, ()) for axis in structure.tensors.get(name) or ()]
        for summed in (*call.contractions, *_averaged(call)):
            terms = 1.0
            for axis in summed:
                if not structure.share(axis, outside):
                    terms *= axis.size if isinstance(axis.size, int) else FLOAT_SUMMANDS
            roundings += terms
    return SAFETY * UNIT_ROUNDOFF * float(np.sqrt(roundings))


def _averaged(call: Call) -> list[Axes]:
    """The axes of which one result of a mean sums a part."""
    operand = call.operands[0] if call.op in AVERAGES else None
    return [] if operand is None or operand.axes is None else [operand.axes[1:]]


def compare(
    names: Sequence[str],
    references: Sequence[npt.NDArray[Any]],
    outputs: Sequence[npt.NDArray[Any]],
    bounded: Container[str] = (),
) -> tuple[Difference, ...]:
    """The difference of each output from its reference; that of ``bounded`` ones is measured on the scale of 1."""
    return tuple(
        _difference(name, a, b, 1.0 if name in bounded else 0.0)
        for name, a, b in zip(names, references, outputs, strict=True)
    )


def worst(runs: Sequence[Sequence[Difference]]) -> tuple[Difference, ...]:
    """For each output the largest difference over several runs."""
    return tuple(
        Difference(
            each[0].name,
            max(d.error for d in each),
            max(d.absolute for d in each),
            any(d.finite for d in each),
            next((d.note for d in each if d.note), ""),
        )
        for each in zip(*runs, strict=True)
    )


def _difference(name: str, reference: Any, output: Any, least: float) -> Difference:
    a, b = np.asarray(reference), np.asarray(output)
    if a.shape != b.shape or a.dtype != b.dtype:
        note = f"is {b.dtype.name}{list(b.shape)} where the reference is {a.dtype.name}{list(a.shape)}"
        return Difference(name, np.inf, np.inf, True, note)
    if a.size == 0:
        return Difference(name, 0.0, 0.0, False, "empty")
    if a.dtype.kind in "iub":
        return _integer_difference(name, a, b)
    if a.dtype.kind not in "fc":
        same = bool(np.array_equal(a, b))
        return Difference(name, 0.0 if same else np.inf, 0.0, True, "" if same else "differs")
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return Difference(name, np.inf, np.inf, True, "has infinities or NaN at other places")
    if not finite.any():
        return Difference(name, 0.0, 0.0, False, "is nowhere finite")
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = np.where(finite, a, 0).astype(wide), np.where(finite, b, 0).astype(wide)
    gap = np.abs(x - y)
    return Difference(
        name, float((gap / np.maximum(_scale(np.abs(x), np.abs(y)), least)).max()), float(gap.max()), True
    )


def _integer_difference(name: str, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Difference:
    """Eight-bit results may be one step apart, where a number fell between two steps; others must be equal."""
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    allowed = 1 if a.dtype in (np.int8, np.uint8) else 0
    beyond = np.maximum(gap - allowed, 0).max()
    scale = max(1.0, float(np.abs(a.astype(np.float64)).max()))
    return Difference(name, float(beyond / scale), float(gap.max()), True)


def _scale(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each element the magnitude that its error is measured against; never 0."""
    whole = x.max() or y.max() or 1.0
    scale = np.full((1,) * x.ndim, whole)
    for axis in {1, x.ndim - 1} if x.ndim > 1 else ():
        if x.size // x.shape[axis] >= SLICE:
            own = x.max(axis=tuple(d for d in range(x.ndim) if d != axis), keepdims=True)
            scale = np.minimum(scale, np.where(own > 0, np.maximum(own, LEAST * whole), whole))
    return scale
