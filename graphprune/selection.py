"""What survives: positions kept of each leaf, and what follows for any axis built from leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, AxisSpace, Concat, Leaf
from graphprune.sizes import Size, product_size

__all__ = ["Mask", "Occurrence", "Positions", "Selection", "occurrences"]

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]


class Selection:
    """Kept positions of the leaves of a space, as boolean masks; a leaf that is not named keeps all.

    Results are cached by axis, so an axis shared by many tensors is worked out once.
    """

    def __init__(self, space: AxisSpace, keep: Mapping[Leaf, Mask]) -> None:
        self.space = space
        self.keep = dict(keep)
        self._masks: dict[int, Mask] = {}
        self._counts: dict[int, Size] = {}
        self._positions: dict[int, Positions] = {}
        self._alive: list[Axis] = []  # the caches are keyed by id, which only a living object keeps to itself

    def mask(self, axis: Axis) -> Mask:
        """Boolean array over the positions of ``axis`` (of known size): True where the position survives."""
        axis = self.space.find(axis)
        if id(axis) not in self._masks:
            for node in self.space.postorder(axis, self._masks):
                self._masks[id(node)] = self._mask(node)
                self._alive.append(node)
        return self._masks[id(axis)]

    def _mask(self, node: Axis) -> Mask:
        if isinstance(node, Leaf):
            kept = self.keep.get(node)
            return np.ones(int(node.size), dtype=np.bool_) if kept is None else kept  # type: ignore[arg-type]
        masks = [self._masks[id(part)] for part in self.space.parts(node)]
        if isinstance(node, Concat):
            return np.concatenate(masks)
        result = np.ones(1, dtype=np.bool_)
        for mask in masks:
            result = np.logical_and.outer(result, mask).reshape(-1)
        return result

    def positions(self, axis: Axis) -> Positions:
        """The positions of ``axis`` (of known size) that survive, in order."""
        axis = self.space.find(axis)
        found = self._positions.get(id(axis))
        if found is None:
            found = self._positions[id(axis)] = np.flatnonzero(self.mask(axis))
        return found

    def count(self, axis: Axis) -> Size:
        """How many positions of ``axis`` survive; symbolic factors stay symbolic."""
        found = self._counts.get(id(axis))
        if found is not None:
            return found
        whole = self.space.find(axis)
        if id(whole) not in self._counts:
            for node in (whole,) if isinstance(whole, Leaf) else self.space.postorder(whole, self._counts):
                self._counts[id(node)] = self._count(node)
                self._alive.append(node)
        if axis is not whole:
            self._counts[id(axis)] = self._counts[id(whole)]
            self._alive.append(axis)
        return self._counts[id(axis)]

    def _count(self, node: Axis) -> Size:
        if isinstance(node, Leaf):
            kept = self.keep.get(node)
            return node.size if kept is None else int(np.count_nonzero(kept))
        counts = [self._counts[id(part)] for part in self.space.parts(node)]
        return sum(counts) if isinstance(node, Concat) else product_size(counts)  # type: ignore[arg-type]

    def cuts(self, axis: Axis) -> bool:
        """Whether any position of ``axis`` goes."""
        return self.count(axis) != axis.size


class Occurrence:
    """One place where a leaf occurs in an axis: axis positions ``index`` are made from leaf positions ``position``."""

    __slots__ = ("index", "leaf", "position")

    def __init__(self, leaf: Leaf, index: npt.NDArray[np.intp], position: npt.NDArray[np.intp]) -> None:
        self.leaf, self.index, self.position = leaf, index, position


def occurrences(space: AxisSpace, axis: Axis) -> list[Occurrence]:
    """All occurrences of leaves in an axis of known size, with the positions they explain.

    >>> space = AxisSpace()
    >>> a, b = space.leaf(2), space.leaf(3)
    >>> [(o.index.tolist(), o.position.tolist()) for o in occurrences(space, space.product([a, b]))]
    [([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]), ([0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2])]
    """
    found: dict[int, list[Occurrence]] = {}
    axis = space.find(axis)
    for node in space.postorder(axis):
        size = int(node.size)  # type: ignore[arg-type]
        result: list[Occurrence] = []
        if isinstance(node, Leaf):
            everything = np.arange(size)
            result.append(Occurrence(node, everything, everything))
        elif isinstance(node, Concat):
            offset = 0
            for part in space.parts(node):
                result.extend(Occurrence(o.leaf, o.index + offset, o.position) for o in found[id(part)])
                offset += int(part.size)  # type: ignore[arg-type]
        else:
            outer, inner = 1, size
            for part in space.parts(node):
                width = int(part.size)  # type: ignore[arg-type]
                inner //= max(width, 1)
                for o in found[id(part)]:
                    index = (np.arange(outer)[:, None] * width + o.index)[..., None] * inner + np.arange(inner)
                    position = np.broadcast_to(o.position[:, None], index.shape)
                    result.append(Occurrence(o.leaf, index.reshape(-1), position.reshape(-1)))
                outer *= width
        found[id(node)] = result
    return found[id(axis)]
