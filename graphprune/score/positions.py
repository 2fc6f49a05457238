"""One flat numbering of all positions of all groups, so that work on them is a few array operations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Concat, Leaf
from graphprune.structure import Structure

__all__ = ["Indices", "Numbers", "Places", "Positions"]

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class Places:
    """Where positions of groups stand in an axis: ``index[k]`` of it is made from group position ``number[k]``."""

    __slots__ = ("index", "number")

    def __init__(self, index: Indices, number: Indices) -> None:
        self.index, self.number = index, number

    def repeats(self) -> Indices | None:
        """How often each position occurs, None where none occurs twice."""
        unique = len(self.number) < 2 or bool((np.diff(np.sort(self.number)) > 0).all())
        return None if unique else np.bincount(self.number)

    def gather(self, values: npt.NDArray[Any], total: int) -> Numbers:
        """For each group position the sum of ``values`` (one for each axis position) where it occurs, else 0."""
        return np.bincount(self.number, weights=values[self.index], minlength=total).astype(np.float64, copy=False)


class Positions:
    """The numbering: group ``leaf`` has the numbers ``first[leaf]`` up to ``first[leaf] + size``."""

    def __init__(self, structure: Structure) -> None:
        self._space = structure.space
        self.first: dict[Leaf, int] = {}
        self.total = 0
        for group in structure.groups:
            self.first[group.leaf] = self.total
            self.total += group.size
        self._places: dict[int, Places] = {}

    def range(self, leaf: Leaf) -> slice:
        """The numbers of a group's positions."""
        first = self.first[leaf]
        return slice(first, first + int(leaf.size))  # type: ignore[arg-type]

    def numbers(self, leaf: Leaf) -> Indices:
        """The numbers of a group's positions, listed."""
        own = self.range(leaf)
        return np.arange(own.start, own.stop)

    def places(self, axis: Axis) -> Places:
        """Where positions of groups stand in ``axis`` (an axis of the structure, of known size)."""
        axis = self._space.find(axis)
        for node in self._space.postorder(axis, self._places):
            self._places[id(node)] = self._stand(node)
        return self._places[id(axis)]

    def _stand(self, node: Axis) -> Places:
        if isinstance(node, Leaf):
            numbers = self.numbers(node) if node in self.first else np.zeros(0, np.intp)
            return Places(np.arange(len(numbers)), numbers)
        parts = self._space.parts(node)
        known = [self._places[id(part)] for part in parts]
        if isinstance(node, Concat):
            starts = itertools.accumulate((int(part.size) for part in parts), initial=0)  # type: ignore[arg-type]
            index = [places.index + start for places, start in zip(known, starts, strict=False)]
            number = [places.number for places in known]
        else:
            index, number = [], []
            outer, inner = 1, int(node.size)  # type: ignore[arg-type]
            for part, places in zip(parts, known, strict=True):
                width = int(part.size)  # type: ignore[arg-type]
                inner //= max(width, 1)
                spread = (np.arange(outer)[:, None] * width + places.index)[..., None] * inner + np.arange(inner)
                index.append(spread.reshape(-1))
                number.append(np.broadcast_to(places.number[:, None], spread.shape).reshape(-1))
                outer *= width
        none = np.zeros(0, np.intp)
        return Places(np.concatenate([none, *index]), np.concatenate([none, *number]))

    def split(self, values: Numbers) -> dict[Leaf, Numbers]:
        """Values of all positions, by group."""
        return {leaf: values[self.range(leaf)] for leaf in self.first}

    def join(self, values: dict[Leaf, Numbers]) -> Numbers:
        """The opposite of :meth:`split`."""
        return np.concatenate([np.asarray(values[leaf], np.float64) for leaf in self.first] or [np.zeros(0)])
