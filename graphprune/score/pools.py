"""Groups that are parts of one original axis, which are judged in the same way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.score.positions import Indices, Numbers, Positions

__all__ = ["pools", "where_missing"]


def pools(positions: Positions) -> list[Indices]:
    """The positions of each original axis that groups are parts of."""
    found: dict[int, list[Leaf]] = {}
    for leaf in positions.first:
        found.setdefault(leaf.pool, []).append(leaf)
    return [np.concatenate([positions.numbers(leaf) for leaf in leaves]) for leaves in found.values()]


def where_missing(
    positions: Positions, values: Numbers, seen: npt.NDArray[np.bool_], other: Callable[[], Numbers]
) -> Numbers:
    """``values``, but ``other()`` for each axis of which not all positions have been ``seen``.

    Numbers of two kinds are never ranked against each other within an axis.
    """
    lacking = [numbers for numbers in pools(positions) if not seen[numbers].all()]
    if not lacking:
        return values
    instead = other()
    result: Numbers = values.copy()
    for numbers in lacking:
        result[numbers] = instead[numbers]
    return result
