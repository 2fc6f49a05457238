"""How the axes of two tensors are coupled: the operators between them, one after the other.

The axes of a structure are refined by all operators together, so they tell *that* two dimensions are coupled but not
*by whom*. Here each operator is asked alone: its rule is applied to fresh axes, and positions are followed through
those local relations, breadth first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from graphprune import rules
from graphprune.axes import Axis, AxisSpace, Leaf
from graphprune.rules.call import Call, Declined, Operand
from graphprune.selection import Mask, Occurrence, Selection, occurrences
from graphprune.structure import Slice, Structure

__all__ = ["Couplings", "Hop", "Relation", "Trail", "hops"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a coupling: the operator ``node`` relates a dimension of one tensor to a dimension of another."""

    source: Slice
    node: str
    op: str
    target: Slice

    def __str__(self) -> str:
        return f"{self.source} -[{self.op} '{self.node}']-> {self.target}"


Trail: TypeAlias = "tuple[Hop, Trail] | None"
"""The last hop of a way and the trail before it."""


def hops(trail: Trail) -> tuple[Hop, ...]:
    """The hops of a trail, first one first."""
    found: list[Hop] = []
    while trail is not None:
        hop, trail = trail
        found.append(hop)
    return tuple(reversed(found))


@dataclass(frozen=True, slots=True)
class Relation:
    """What one operator says alone: the axes of its operands and results in a space of its own."""

    space: AxisSpace
    axes: dict[Slice, Axis]

    def leaves(self, place: Slice) -> list[Leaf]:
        """The distinct leaves of a dimension."""
        return self.space.leaves(self.axes[place])

    def occurrences(self, place: Slice) -> list[Occurrence] | None:
        """Where the leaves of a dimension occur in it; None if its size is symbolic."""
        axis = self.space.find(self.axes[place])
        return occurrences(self.space, axis) if isinstance(axis.size, int) else None


class Couplings:
    """The relations of all operators of a structure, worked out as they are asked for."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self._relations: dict[int, Relation] = {}

    @cached_property
    def touching(self) -> dict[str, list[int]]:
        """For each tensor the numbers of the calls that read or make it, in reading order."""
        found: dict[str, dict[int, None]] = {}
        for number, call in enumerate(self.structure.calls):
            for name in _tensors(call):
                found.setdefault(name, {})[number] = None
        return {name: list(numbers) for name, numbers in found.items()}

    def relation(self, number: int) -> Relation:
        """What call ``number`` says alone."""
        if number not in self._relations:
            self._relations[number] = self._relate(self.structure.calls[number])
        return self._relations[number]

    def _relate(self, call: Call) -> Relation:
        binding = rules.find(call.op)
        if call.border:
            return Relation(self.structure.space, self._known(call))  # bodies are read in place, never alone
        space = AxisSpace()
        if binding is None:
            return Relation(space, {})
        operands: dict[str, Operand] = {}
        for operand in call.operands:
            if operand is not None:
                axes = None if operand.axes is None else tuple(space.leaf(axis.size) for axis in operand.axes)
                # The axes that elements refer to belong to the structure, which must not change.
                elements = operand.elements and tuple(replace(element, axis=None) for element in operand.elements)
                operands.setdefault(operand.name, replace(operand, axes=axes, elements=elements))
        alone = Call(
            space,
            call.node,
            call.op,
            [None if operand is None else operands[operand.name] for operand in call.operands],
            call.attributes,
            call.result_sizes,
            call.opset,
        )
        try:
            results = list(binding.rule(alone))
        except Declined:
            return Relation(space, {})
        named = [(name, operand.axes) for name, operand in operands.items()]
        named += zip(call.results, results, strict=False)
        return Relation(space, {Slice(name, dim): axis for name, axes in named for dim, axis in enumerate(axes or ())})

    def _known(self, call: Call) -> dict[Slice, Axis]:
        tensors = self.structure.tensors
        return {Slice(name, dim): axis for name in _tensors(call) for dim, axis in enumerate(tensors.get(name) or ())}

    # -- walking --------------------------------------------------------------------------------------------------

    def walk(self, start: Slice, leaf: Leaf) -> Iterator[tuple[Slice, Trail]]:
        """The dimensions that lose positions when ``start`` loses the first position of ``leaf``, nearest first.

        Each comes with the way that leads to it (see :func:`hops`). Dimensions that positions do not lead to (it takes
        several operators together to couple them) follow by the axes that they share.
        """
        yielded: set[Slice] = set()
        for precise in (True, False):
            for place, trail in self._walk(start, leaf, precise):
                if place not in yielded:
                    yielded.add(place)
                    yield place, trail

    def _walk(self, start: Slice, leaf: Leaf, precise: bool) -> Iterator[tuple[Slice, Trail]]:
        removal = _Removal(self.structure, leaf)
        first = removal.mask(start) if precise else None
        queue: deque[tuple[Slice, Mask | None, Trail]] = deque([(start, first, None)])
        seen = {(start, None if first is None else first.tobytes())}
        while queue:
            place, mask, trail = queue.popleft()
            yield place, trail
            for number in self.touching.get(place.tensor, ()):
                call, relation = self.structure.calls[number], self.relation(number)
                for target, moved in _images(relation, place, mask):
                    if not removal.touches(target):
                        continue
                    if moved is None and precise:
                        moved = removal.mask(target)
                    key = (target, None if moved is None else moved.tobytes())
                    if key not in seen:
                        seen.add(key)
                        queue.append((target, moved, (Hop(place, call.node, call.op, target), trail)))


class _Removal:
    """What the removal of the first position of a leaf does to the dimensions of a structure."""

    def __init__(self, structure: Structure, leaf: Leaf) -> None:
        self.structure, self.leaf = structure, leaf
        size = leaf.size if isinstance(leaf.size, int) else 0
        self.selection = Selection(structure.space, {leaf: np.arange(size) != 0}) if size else None

    def touches(self, place: Slice) -> bool:
        """Whether a dimension holds the leaf."""
        axes = self.structure.tensors.get(place.tensor)
        return axes is not None and place.dim < len(axes) and self.leaf in self.structure.leaves(axes[place.dim])

    def mask(self, place: Slice) -> Mask | None:
        """The positions that go, None where they cannot be listed because a size is symbolic."""
        axis = self.structure.space.find(self.structure.axis(place.tensor, place.dim))
        if self.selection is None or not isinstance(axis.size, int):
            return None
        return ~self.selection.mask(axis)


def _tensors(call: Call) -> dict[str, None]:
    """Names of all tensors that a call touches, in order, each once."""
    names = [operand.name for operand in call.operands if operand is not None]
    return dict.fromkeys(name for name in (*names, *call.results, *call.border) if name)


def _images(relation: Relation, place: Slice, mask: Mask | None) -> Iterator[tuple[Slice, Mask | None]]:
    """What the loss of the positions ``mask`` of a dimension costs the other dimensions of one operator.

    A position of a leaf is lost where all that it stands for is. Without a mask, every dimension that shares a leaf.
    """
    if place not in relation.axes:
        return
    shared = set(relation.leaves(place))
    here = relation.occurrences(place)
    lost = None if mask is None or here is None or any(len(o.index) > len(mask) for o in here) else _lost(here, mask)
    for target in relation.axes:
        if target == place or shared.isdisjoint(relation.leaves(target)):
            continue
        there = None if lost is None else relation.occurrences(target)
        if lost is None or there is None:
            yield target, None
            continue
        moved = np.zeros(int(relation.axes[target].size), dtype=np.bool_)  # type: ignore[arg-type]
        for occurrence in there:
            if occurrence.leaf in lost:
                moved[occurrence.index[lost[occurrence.leaf][occurrence.position]]] = True
        if moved.any():
            yield target, moved


def _lost(here: list[Occurrence], mask: Mask) -> dict[Leaf, Mask]:
    """The positions of each leaf of which everything in a dimension is in ``mask``."""
    stands: dict[Leaf, Mask] = {}
    for occurrence in here:
        kept = stands.setdefault(occurrence.leaf, np.zeros(int(occurrence.leaf.size), dtype=np.bool_))  # type: ignore[arg-type]
        kept[occurrence.position[~mask[occurrence.index]]] = True
    return {leaf: ~kept for leaf, kept in stands.items()}
