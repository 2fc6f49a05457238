"""Positions that must stay so that no tensor runs empty, whatever else goes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Concat, Leaf, Product
from graphprune.score.positions import Numbers, Places, Positions
from graphprune.structure import Structure

__all__ = ["indispensable"]


def indispensable(structure: Structure, positions: Positions, scores: Numbers) -> npt.NDArray[np.bool_]:
    """For each numbered position whether it must stay: the best-scored ones that keep every tensor's axes non-empty,
    and those that operators need at least.

    An axis is a leaf (its best position stays), a product (no factor may run empty) or a concatenation (one part must
    not). Taking the best position costs a ranking nothing: it would be the last to go.
    """
    kept = _Occupancy(structure, positions, scores).kept
    for call in structure.calls:
        for axis, least in call.least:
            if isinstance(axis.size, int):
                _keep_best(kept, positions.places(axis), axis.size, least, scores)
    return kept


def _keep_best(kept: npt.NDArray[np.bool_], places: Places, size: int, least: int, scores: Numbers) -> None:
    """Note that the best ``least`` positions of an axis stay; one that consists of several is as good as its worst."""
    worth = np.full(size, np.inf)
    np.minimum.at(worth, places.index, scores[places.number])
    best = np.zeros(size, np.bool_)
    best[np.argsort(-worth, kind="stable")[:least]] = True
    kept[places.number[best[places.index]]] = True


class _Occupancy:
    def __init__(self, structure: Structure, positions: Positions, scores: Numbers) -> None:
        self._space = structure.space
        self._positions = positions
        self._scores = scores
        self.kept = np.zeros(positions.total, np.bool_)
        self._best: dict[int, float] = {}
        self._wholes: defaultdict[int, list[Axis]] = defaultdict(list)
        self._missing: dict[int, int] = {}  # how many parts of an axis must come to stay before it cannot run empty
        roots = {id(root): root for root in map(self._space.find, _axes(structure))}
        nodes = list(self._space.nodes(roots.values()))
        for node in nodes:
            self._enter(node)
        required = self._demand(list(roots.values()))
        for node in nodes:
            if id(node) in required and self._missing[id(node)]:
                self._demand([node], open_concats=True)

    def _enter(self, node: Axis) -> None:
        self._best[id(node)] = self._score(node)
        if isinstance(node, Leaf):
            self._missing[id(node)] = int(node in self._positions.first)
            return
        parts = self._space.parts(node)
        for part in parts:
            self._wholes[id(part)].append(node)
        empty = [self._missing[id(part)] > 0 for part in parts]
        self._missing[id(node)] = int(all(empty)) if isinstance(node, Concat) else sum(empty)

    def _occupy(self, leaf: Leaf) -> None:
        """Note that a position of ``leaf`` stays, and which axes cannot run empty any more because of that."""
        stack: list[Axis] = [leaf] if self._missing[id(leaf)] else []
        while stack:
            node = stack.pop()
            if self._missing[id(node)]:
                self._missing[id(node)] -= 1
                stack.extend(() if self._missing[id(node)] else self._wholes[id(node)])

    def _demand(self, nodes: list[Axis], open_concats: bool = False) -> set[int]:
        """Keep the best position of every leaf that ``nodes`` need; returns the concatenations left undecided."""
        pending: set[int] = set()
        done: set[int] = set()
        while nodes:
            node = self._space.find(nodes.pop())
            if id(node) in done:
                continue
            done.add(id(node))
            if isinstance(node, Product):
                nodes.extend(self._space.parts(node))
            elif isinstance(node, Concat):
                pending.add(id(node))
                if open_concats:
                    nodes.append(max(self._space.parts(node), key=lambda part: self._best[id(part)]))
            elif isinstance(node, Leaf) and node in self._positions.first and node.size != 0:
                numbers = self._positions.range(node)
                self.kept[numbers.start + int(np.argmax(self._scores[numbers]))] = True
                self._occupy(node)
        return pending

    def _score(self, node: Axis) -> float:
        if isinstance(node, Leaf):
            own = node in self._positions.first and node.size != 0
            return float(self._scores[self._positions.range(node)].max()) if own else np.inf
        parts = [self._best[id(part)] for part in self._space.parts(node)]
        return max(parts, default=np.inf) if isinstance(node, Concat) else min(parts, default=np.inf)


def _axes(structure: Structure) -> list[Axis]:
    return [axis for axes in structure.tensors.values() for axis in axes or ()]
