"""Positions of a parameter that this graph never reads, such as those of a table longer than the example's sequence."""

from __future__ import annotations

from collections import Counter

from graphprune.axes import Leaf, Pin
from graphprune.structure import Structure

__all__ = ["pin_unread_positions"]


def pin_unread_positions(structure: Structure) -> None:
    """Keep positions that occur in one parameter and in nothing that is computed from an input.

    Whether they matter shows on other inputs only: a table of positions is cut to the length of the example.
    """
    stored = {name: axes for name in structure.parameters if (axes := structure.tensors.get(name))}
    fixed = _fixed(structure, {id(axes) for axes in stored.values()})
    computed = (axis for axes in structure.tensors.values() if axes and id(axes) not in fixed for axis in axes)
    read = {node for node in structure.space.nodes(computed) if isinstance(node, Leaf)}
    places: Counter[Leaf] = Counter()
    owner: dict[Leaf, str] = {}
    for name, axes in stored.items():
        for axis in axes:
            for leaf in structure.leaves(axis):
                places[leaf] += 1
                owner[leaf] = name
    for leaf, count in places.items():
        if count == 1 and leaf not in read and not leaf.pinned:
            structure.space.pin(leaf, Pin(owner[leaf], "parameter", "positions that nothing reads on these inputs"))


def _fixed(structure: Structure, parameters: set[int]) -> set[int]:
    """The tensors, by the identity of their axes, that are parameters or computed from nothing else."""
    fixed = set(parameters)
    for call in structure.calls:
        given = [
            structure.tensors.get(operand.name, operand.axes)
            for operand in call.operands
            if operand is not None and operand.elements is None and operand.axes != ()
        ]
        if given and all(id(axes) in fixed for axes in given):
            fixed |= {id(axes) for name in call.results if (axes := structure.tensors.get(name))}
    return fixed
