"""The table of samples: ``row("Conv", (2, 6, 5, 5), (8, 3, 3, 3), group=2)`` is one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rules.sample import NEWEST, Array, Const, Places, Reference, Sample, random

ROWS: list[Sample] = []

Spelled = tuple[int, ...] | Array | np.generic | Const | Places | None


def const(values: object, dtype: npt.DTypeLike = np.int64) -> Const:
    """A constant operand with these contents."""
    return Const(np.asarray(values, dtype))


def data(values: object, dtype: npt.DTypeLike = np.int64) -> Array:
    """An operand with these contents, which the rule cannot read."""
    return np.asarray(values, dtype)


def places(values: object, size: int, dtype: npt.DTypeLike = np.int64) -> Places:
    """An operand that holds positions along an axis of ``size``."""
    return Places(np.asarray(values, dtype), size)


def of(dtype: npt.DTypeLike, *shape: int, seed: int = 0) -> Array:
    """Random numbers of another type than float."""
    return random(shape, dtype, seed)


def positive(*shape: int) -> Array:
    """Random numbers above zero."""
    return np.abs(random(shape))


def row(
    op: str,
    *operands: Spelled,
    results: int = 1,
    opset: int = NEWEST,
    reference: Reference | None = None,
    tolerance: float = 1e-4,
    name: str = "",
    by_onnx: bool = False,
    follows: bool = False,
    more: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> None:
    """Add a sample of ``op`` (standard unless it has a dot); a tuple of sizes is a random float tensor.

    ``more`` are attributes whose names are taken by this function.
    """
    arrays: Sequence[Array | Const | Places | None] = [
        random(operand, seed=number)
        if isinstance(operand, tuple)
        else np.asarray(operand)
        if isinstance(operand, np.generic)
        else operand
        for number, operand in enumerate(operands)
    ]
    full = op if "." in op else f"onnx.{op}"
    ROWS.append(
        Sample(
            full, arrays, {**attributes, **(more or {})}, opset, results, reference, tolerance, by_onnx, follows, name
        )
    )


def rows(ops: str, *operands: Spelled, **options: Any) -> None:
    """The same sample for several operators."""
    for op in ops.split():
        row(op, *operands, **options)
