"""One flat numbering of all positions of all groups, so that work on them is a few array operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Leaf
from graphprune.selection import occurrences
from graphprune.structure import Structure

__all__ = ["Numbers", "Places", "Positions"]

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class Places:
    """Where positions of groups stand in an axis: axis position ``index[k]`` is made from group position ``number[k]``.

    ``repeats`` is how often each occurs, None where none occurs twice.
    """

    __slots__ = ("index", "number", "repeats")

    def __init__(self, index: Indices, number: Indices) -> None:
        self.index, self.number = index, number
        unique = len(number) < 2 or bool((np.diff(np.sort(number)) > 0).all())
        self.repeats: Indices | None = None if unique else np.bincount(number)

    def gather(self, values: npt.NDArray[Any], total: int) -> Numbers:
        """For each group position the sum of ``values`` (one for each axis position) where it occurs, else 0."""
        return np.bincount(self.number, weights=values[self.index], minlength=total).astype(np.float64, copy=False)


class Positions:
    """The numbering: group ``leaf`` has the numbers ``first[leaf]`` up to ``first[leaf] + size``."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
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

    def places(self, axis: Axis) -> Places:
        """Where positions of groups stand in ``axis`` (of known size)."""
        axis = self._structure.space.find(axis)
        found = self._places.get(id(axis))
        if found is None:
            own = [o for o in occurrences(self._structure.space, axis) if o.leaf in self.first]
            none: list[Indices] = [np.zeros(0, np.intp)]
            index = np.concatenate([o.index for o in own] or none)
            number = np.concatenate([o.position + self.first[o.leaf] for o in own] or none)
            found = self._places[id(axis)] = Places(index, number)
        return found

    def split(self, values: Numbers) -> dict[Leaf, Numbers]:
        """Values of all positions, by group."""
        return {leaf: values[self.range(leaf)] for leaf in self.first}

    def join(self, values: dict[Leaf, Numbers]) -> Numbers:
        """The opposite of :meth:`split`."""
        return np.concatenate([np.asarray(values[leaf], np.float64) for leaf in self.first] or [np.zeros(0)])
