"""How the numbers that a position gets from several slices become one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis
from graphprune.score.positions import Indices, Numbers, Positions

__all__ = ["Reduced", "Reduction"]

Reduction = Literal["mean", "sum", "max", "prod", "first"]
"""``prod`` is the geometric mean, which ranks as the product does and stays finite; ``first`` the first in reading
order."""

_TINY = np.finfo(np.float64).tiny


class Reduced:
    """Numbers of slices, reduced position by position; none of them is negative."""

    def __init__(self, positions: Positions, reduction: Reduction) -> None:
        self._positions, self._reduction = positions, reduction
        self._values = np.zeros(positions.total)
        self._seen = np.zeros(positions.total)

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which positions have got a number."""
        return self._seen > 0

    def add(self, axis: Axis, values: npt.NDArray[np.floating]) -> None:
        """Take in one number for each position of an axis; where a position of a group occurs twice, their sum."""
        places = self._positions.places(axis)
        repeats = places.repeats()
        if repeats is None:
            self.take(places.number, values[places.index])
        else:
            numbers = np.flatnonzero(repeats)
            self.take(numbers, places.gather(values, self._positions.total)[numbers])

    def take(self, numbers: Indices, values: npt.NDArray[np.floating]) -> None:
        """Take in one number for each of the positions ``numbers``, which are distinct."""
        if self._reduction == "max":
            self._values[numbers] = np.maximum(self._values[numbers], values)
        elif self._reduction == "prod":
            self._values[numbers] += np.log(np.maximum(values, _TINY))
        elif self._reduction == "first":
            new = self._seen[numbers] == 0
            self._values[numbers[new]] = values[new]
        else:
            self._values[numbers] += values
        self._seen[numbers] += 1

    def result(self) -> Numbers:
        """One number for each position; 0 where nothing was seen."""
        if self._reduction == "mean":
            return self._values / np.maximum(self._seen, 1)
        if self._reduction == "prod":
            return np.where(self.seen, np.exp(self._values / np.maximum(self._seen, 1)), 0.0)
        return self._values
