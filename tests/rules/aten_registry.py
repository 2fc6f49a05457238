"""The table of ATen samples: ``row("conv2d", (2, 6, 5, 5), (8, 3, 3, 3), groups=2)`` is one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphprune.rules.positions import COUNTS, ENDS, POSITIONS
from rules.aten_sample import AtenSample, Const, Numbers, resolve
from rules.sample import random

ROWS: list[AtenSample] = []


def const(values: object, dtype: torch.dtype | None = None) -> Const:
    """A constant operand with these contents."""
    return Const(torch.tensor(values, dtype=dtype))


def data(values: object, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An operand with these contents, which the rule cannot read."""
    return torch.tensor(values, dtype=dtype)


def places(values: object, size: int) -> Numbers:
    """An operand that holds positions along an axis of ``size``."""
    return Numbers(torch.tensor(values), POSITIONS, size)


def counts(*values: int) -> Numbers:
    """An operand that says how often each position of its axis was chosen."""
    return Numbers(torch.tensor(values), COUNTS)


def ends(*values: int, dtype: torch.dtype = torch.int64) -> Numbers:
    """An operand that says where the run of each position of its axis ends."""
    return Numbers(torch.tensor(values, dtype=dtype), ENDS)


def of(dtype: npt.DTypeLike, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random numbers of another type than float."""
    return torch.from_numpy(np.array(random(shape, dtype, seed)))


def positive(*shape: int) -> torch.Tensor:
    """Random numbers above zero."""
    return of(np.float32, *shape).abs()


def row(
    op: str,
    *args: Any,
    tolerance: float = 1e-4,
    follows: bool = False,
    name: str = "",
    read: Sequence[int] = (),
    reference: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> None:
    """Add a sample of ``op`` (of ATen unless it names another space; perhaps with its overload).

    Arguments stand as in the schema. A tuple of sizes is a random float tensor, a list may hold tensors or numbers.
    ``reference`` stands in for an operator that needs a GPU.
    """
    count = 0

    def spell(value: Any) -> Any:
        nonlocal count
        if isinstance(value, list):
            return [spell(each) for each in value]
        if isinstance(value, tuple):
            count += 1
            return of(np.float32, *value, seed=count)
        return value

    spelled, named = [spell(arg) for arg in args], {key: spell(value) for key, value in kwargs.items()}
    full = op if op.split(".")[0] in _SPACES else f"aten.{op}"
    ROWS.append(AtenSample(resolve(full, spelled, named), spelled, named, tolerance, follows, name, read, reference))


def rows(ops: str, *args: Any, **kwargs: Any) -> None:
    """The same sample for several operators."""
    for op in ops.split():
        row(op, *args, **kwargs)


_SPACES = ("aten", "torchvision", "quantized_decomposed", "prims", "higher_order", "transformers")
