"""What a program looks like to graphprune: axes of every tensor, and what each operator does with them.

A structure holds no weights and is never executed or stored: it is read from a host program, decided upon, and read
again after each write.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from graphprune.axes import Axis, AxisSpace, Leaf, Pin
from graphprune.roles import CHANNEL, infer_roles
from graphprune.rules.call import Axes, Call
from graphprune.sizes import product_size

__all__ = ["Group", "Parameter", "Slice", "Structure"]


class Parameter(NamedTuple):
    """A weight: its name, number of elements, bytes for each element, and whether it counts as a parameter.

    Small integer tensors (shapes, indices) are stored like weights but do not count.
    """

    name: str
    elements: int
    itemsize: float
    counts: bool = True


class Slice(NamedTuple):
    """A dimension of a parameter."""

    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.tensor}:{self.dim}"


@dataclass(frozen=True, slots=True)
class Group:
    """Positions that stand or fall together in all slices: one leaf that is not pinned.

    ``exact`` says whether removing it equals feeding zeros (False where statistics are taken over it, under a LayerNorm
    for instance).
    """

    name: str
    leaf: Leaf
    size: int
    exact: bool
    structure: Structure = field(repr=False, compare=False)

    @property
    def role(self) -> str:
        """What a position is: a channel, a head, ... (:mod:`graphprune.roles`)."""
        return self.structure.roles.get(self.leaf, CHANNEL)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The dimensions of parameters that hold the leaf, in reading order."""
        return self.structure.slices(self.leaf)


@dataclass
class Structure:
    """Axes of all tensors of a program, its parameters, its calls in reading order, and what nobody declared.

    ``inputs`` and ``outputs`` are the tensors that the program takes and gives away, and ``itemsizes`` the bytes of one
    element of each input and result as far as the host states them.
    """

    space: AxisSpace
    tensors: dict[str, Axes | None] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    undeclared: Counter[str] = field(default_factory=Counter)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    itemsizes: dict[str, float] = field(default_factory=dict)

    def axis(self, tensor: str, dim: int) -> Axis:
        """The axis of a tensor's dimension.

        Raises:
            KeyError: no such tensor or dimension, or its shape is unknown.
        """
        axes = self.tensors.get(tensor)
        if axes is None or not -len(axes) <= dim < len(axes):
            raise KeyError(f"{tensor}:{dim}")
        return axes[dim]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups that hold a parameter, in reading order."""
        free = [
            node
            for node in self.space.nodes(axis for _, axis in self._slices())
            if isinstance(node, Leaf) and not node.pinned and isinstance(node.size, int)
        ]
        mixed = self._mixed()
        return tuple(
            Group(f"a{number}", leaf, int(leaf.size), leaf not in mixed, self)  # type: ignore[arg-type]
            for number, leaf in enumerate(free)
        )

    @cached_property
    def roles(self) -> dict[Leaf, str]:
        """What positions of the leaves are, where that is more than channels; inferred when it is asked for."""
        return infer_roles(self)

    def slices(self, leaf: Leaf) -> tuple[Slice, ...]:
        """The dimensions of parameters that hold ``leaf``, in reading order."""
        wholes, places = self._wholes
        found: list[tuple[int, Slice]] = []
        seen: set[int] = {id(leaf)}
        stack: list[Axis] = [leaf]
        while stack:
            node = stack.pop()
            found.extend(places.get(id(node), ()))
            for whole in wholes.get(id(node), ()):
                if id(whole) not in seen:
                    seen.add(id(whole))
                    stack.append(whole)
        return tuple(place for _, place in sorted(found, key=lambda each: each[0]))

    @cached_property
    def _wholes(self) -> tuple[dict[int, list[Axis]], dict[int, list[tuple[int, Slice]]]]:
        """For each axis, by id, the axes that it is a part of, and the dimensions of parameters, numbered, that it is.

        Slices of all groups together are more than linear in the size of a densely connected program, so they are
        found from this when they are asked for.
        """
        wholes: defaultdict[int, list[Axis]] = defaultdict(list)
        places: defaultdict[int, list[tuple[int, Slice]]] = defaultdict(list)
        for node in self.space.nodes(axis for _, axis in self._slices()):
            for part in self.space.parts(node):
                wholes[id(part)].append(node)
        for number, (place, axis) in enumerate(self._slices()):
            places[id(self.space.find(axis))].append((number, place))
        return wholes, places

    def _slices(self) -> Iterator[tuple[Slice, Axis]]:
        for name in self.parameters:
            for dim, axis in enumerate(self.tensors.get(name) or ()):
                yield Slice(name, dim), axis

    @cached_property
    def _leaves(self) -> dict[int, tuple[Axis, list[Leaf]]]:
        return {}  # the axis is kept beside its leaves because only a living object keeps its id to itself

    def leaves(self, axis: Axis) -> list[Leaf]:
        """The distinct leaves of an axis; remembered, because many tensors share axes."""
        axis = self.space.find(axis)
        if id(axis) not in self._leaves:
            self._leaves[id(axis)] = (axis, self.space.leaves(axis))
        return self._leaves[id(axis)][1]

    def _mixed(self) -> set[Leaf]:
        mixed = (mix.axis for call in self.calls for mix in call.mixes if mix.kind == "statistics")
        return {node for node in self.space.nodes(mixed) if isinstance(node, Leaf)}

    def share(self, axis: Axis, others: Iterable[Axis]) -> bool:
        """Whether ``axis`` holds a leaf of any of ``others``."""
        low, high, _ = self._span(axis)
        near = [other for other in others if self._span(other)[0] <= high and low <= self._span(other)[1]]
        if not near or self.space.find(axis) in map(self.space.find, near):
            return bool(near)
        return not set(self.leaves(axis)).isdisjoint(leaf for other in near for leaf in self.leaves(other))

    @cached_property
    def _spans(self) -> dict[int, tuple[float, float, Axis]]:
        return {}

    def _span(self, axis: Axis) -> tuple[float, float, Axis]:
        """The lowest and the highest number of a leaf of ``axis``, so that most axes are told apart at once."""
        axis = self.space.find(axis)
        for node in self.space.postorder(axis, self._spans):
            if isinstance(node, Leaf):
                self._spans[id(node)] = (node.number, node.number, node)
                continue
            spans = [self._spans[id(part)] for part in self.space.parts(node)]
            low = min((span[0] for span in spans), default=math.inf)
            self._spans[id(node)] = (low, max((span[1] for span in spans), default=-1), node)
        return self._spans[id(axis)]

    def free(self, axes: Iterable[Axis]) -> bool:
        """Whether any of ``axes`` has a position that can go."""
        return any(not leaf.pinned for axis in axes for leaf in self.leaves(axis))

    @property
    def counted(self) -> list[Parameter]:
        """The parameters that count."""
        return [parameter for parameter in self.parameters.values() if parameter.counts]

    def pins(self, axis: Axis) -> tuple[Pin, ...]:
        """The reasons why ``axis`` cannot be cut, without repeats."""
        return tuple(dict.fromkeys(pin for leaf in self.leaves(axis) for pin in leaf.pins))

    def sizes(self, tensor: str) -> str:
        """The shape of a tensor as text."""
        axes = self.tensors.get(tensor)
        return "unknown shape" if axes is None else "x".join(str(axis.size) for axis in axes) or "scalar"

    def elements(self, tensor: str) -> object:
        """The number of elements of a tensor (a :data:`~graphprune.sizes.Size`)."""
        return product_size(axis.size for axis in self.tensors.get(tensor) or ())
