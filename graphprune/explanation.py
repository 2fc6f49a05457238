"""Why a dimension cannot be cut, what it is cut together with, and by which operators two dimensions are coupled."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphprune.axes import Leaf, Pin
from graphprune.coupling import Couplings, Hop, hops
from graphprune.errors import UsageError
from graphprune.structure import Group, Slice, Structure
from graphprune.text import shortened, size_text

__all__ = ["Coupling", "DimensionExplanation", "Explanation", "PinExplanation", "explain"]

SHOWN = 8
"""Slices of a group that a text lists before it counts the rest."""


@dataclass(frozen=True, slots=True)
class PinExplanation:
    """A reason to keep all positions, and the shortest way from the dimension to the operator that has it.

    ``reached`` is False where no chain of operators leads there: it takes several together to couple the two.
    """

    pin: Pin
    way: tuple[Hop, ...]
    reached: bool = True


@dataclass(frozen=True, slots=True)
class DimensionExplanation:
    """What is known about one dimension: the groups that it holds, and the pins of what is pinned in it."""

    place: Slice
    size: str
    groups: tuple[Group, ...]
    pins: tuple[PinExplanation, ...]
    note: str = ""

    @property
    def pinned(self) -> bool:
        """Whether nothing of the dimension can go."""
        return not self.groups

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON values."""
        return {
            "tensor": self.place.tensor,
            "dim": self.place.dim,
            "size": self.size,
            "pinned": self.pinned,
            "note": self.note,
            "groups": [
                {
                    "name": group.name,
                    "role": group.role,
                    "size": group.size,
                    "exact": group.exact,
                    "slices": [str(place) for place in group.slices],
                }
                for group in self.groups
            ],
            "pins": [
                {
                    "node": reason.pin.node,
                    "op": reason.pin.op,
                    "reason": reason.pin.reason,
                    "path": [_hop(hop) for hop in reason.way],
                }
                for reason in self.pins
            ],
        }

    def lines(self) -> list[str]:
        """The explanation as text."""
        state = "free" if self.groups else self.note or "pinned"
        text = [f"{self.place} [{self.size}] {'partly pinned' if self.groups and self.pins else state}"]
        for group in self.groups:
            text.append(f"  group {group.name}: {group.role}[{group.size}] {'exact' if group.exact else 'inexact'}")
            text.append("    " + "  ".join(shortened([str(place) for place in group.slices], SHOWN)))
        for reason in self.pins:
            text.append(f"  {reason.pin}")
            text.extend(f"    {line}" for line in _way(reason.way))
            if not reason.reached:
                text.append("    (coupled by several operators together)")
        return text


@dataclass(frozen=True, slots=True)
class Coupling:
    """Two dimensions that lose positions together, and the shortest way from the one to the other."""

    source: Slice
    target: Slice
    group: str
    way: tuple[Hop, ...]
    reached: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The coupling as JSON values."""
        return {
            "from": str(self.source),
            "to": str(self.target),
            "group": self.group,
            "path": [_hop(hop) for hop in self.way],
        }

    def lines(self) -> list[str]:
        """The coupling as text."""
        text = [f"{self.source} and {self.target} are coupled ({self.group})"]
        text.extend(f"  {line}" for line in _way(self.way))
        if not self.reached:
            text.append("  (coupled by several operators together)")
        return text


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to a question about one tensor or two; ``coupled`` is None where one was asked about."""

    dimensions: tuple[DimensionExplanation, ...]
    couplings: tuple[Coupling, ...] = ()
    coupled: bool | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON values."""
        return {
            "coupled": self.coupled,
            "note": self.note,
            "couplings": [coupling.to_dict() for coupling in self.couplings],
            "dimensions": [dimension.to_dict() for dimension in self.dimensions],
        }

    def __str__(self) -> str:
        text = [self.note] if self.note else []
        for coupling in self.couplings:
            text.extend(coupling.lines())
        if not self.couplings:
            for dimension in self.dimensions:
                text.extend(dimension.lines())
        return "\n".join(text)


def explain(structure: Structure, a: str, b: str | None = None) -> Explanation:
    """Why ``a`` (``TENSOR`` or ``TENSOR:DIM``) is pinned or what it is grouped with; with ``b``, how both are coupled.

    Raises:
        UsageError: there is no such tensor or dimension; names like it are suggested.
    """
    couplings = Couplings(structure)
    first = _places(structure, a)
    if b is None:
        return Explanation(tuple(_dimension(couplings, place) for place in first))
    second = _places(structure, b)
    found = [
        coupling
        for source in first
        for target in second
        if source != target and (coupling := _coupling(couplings, source, target)) is not None
    ]
    if found:
        return Explanation((), tuple(sorted(found, key=lambda coupling: len(coupling.way))), True)
    places = dict.fromkeys((*first, *second))
    note = f"{a} and {b} are not coupled: no position of the one goes with a position of the other"
    if len(places) == 1:
        note = f"{a} and {b} are the same dimension"
    return Explanation(tuple(_dimension(couplings, place, ways=False) for place in places), (), False, note)


def _places(structure: Structure, text: str) -> list[Slice]:
    """The dimensions that a selector names; a tensor's name may hold colons itself."""
    if text in structure.tensors:
        axes = structure.tensors[text]
        return [Slice(text, dim) for dim in range(len(axes))] if axes is not None else [_unknown(text)]
    name, _, number = text.rpartition(":")
    if name not in structure.tensors or not number.removeprefix("-").isdecimal():
        raise UsageError(_no_such(structure, name if number.removeprefix("-").isdecimal() and name else text))
    axes, dim = structure.tensors[name], int(number)
    if axes is None:
        return [_unknown(name)]
    if not -len(axes) <= dim < len(axes):
        raise UsageError(f"tensor '{name}' has no dimension {dim}: its shape is {structure.sizes(name)}")
    return [Slice(name, dim % len(axes))]


def _unknown(name: str) -> Slice:
    raise UsageError(f"the shape of tensor '{name}' is unknown, so nothing of it can be cut")


def _no_such(structure: Structure, name: str) -> str:
    for call in structure.calls:
        if call.node == name:
            tensors = [operand.name for operand in call.operands if operand is not None]
            return f"'{name}' is an operator: ask about one of its tensors: {', '.join([*tensors, *call.results])}"
    near = difflib.get_close_matches(name, list(structure.tensors), n=3, cutoff=0.5)
    near = near or [tensor for tensor in structure.tensors if name.lower() in tensor.lower()][:3]
    if near:
        return f"there is no tensor '{name}'; did you mean {' or '.join(repr(tensor) for tensor in near)}?"
    return f"there is no tensor '{name}'; `graphprune inspect` lists the parameters"


def _dimension(couplings: Couplings, place: Slice, ways: bool = True) -> DimensionExplanation:
    structure = couplings.structure
    axis = structure.space.find(structure.axis(place.tensor, place.dim))
    leaves = structure.leaves(axis)
    groups = tuple(group for group in structure.groups if group.leaf in leaves)
    pins: dict[Pin, PinExplanation] = {}
    for leaf in leaves:
        for reason in _pins(couplings, place, leaf) if ways else [PinExplanation(pin, ()) for pin in leaf.pins]:
            if reason.pin not in pins or len(reason.way) < len(pins[reason.pin].way):
                pins[reason.pin] = reason
    note = ""
    if not groups and not pins:
        note = "one position, nothing to cut" if axis.size == 1 else "free, but no parameter has this axis"
    return DimensionExplanation(place, size_text(axis.size), groups, tuple(pins.values()), note)


def _pins(couplings: Couplings, place: Slice, leaf: Leaf) -> list[PinExplanation]:
    """Each pin of a leaf with the shortest way to a tensor that the operator of the pin touches."""
    missing = list(leaf.pins)
    found: dict[Pin, PinExplanation] = {}
    if missing:
        for reached, trail in couplings.walk(place, leaf):
            for pin in list(missing):
                if pin.node in _owners(couplings, reached):
                    found[pin] = PinExplanation(pin, hops(trail))
                    missing.remove(pin)
            if not missing:
                break
    return [found.get(pin, PinExplanation(pin, (), reached=False)) for pin in leaf.pins]


def _owners(couplings: Couplings, place: Slice) -> set[str]:
    """Names of what may pin a tensor's dimension: the tensor itself, and the operators that touch it."""
    calls = couplings.structure.calls
    return {place.tensor, *(calls[number].node for number in couplings.touching.get(place.tensor, ()))}


def _coupling(couplings: Couplings, source: Slice, target: Slice) -> Coupling | None:
    structure = couplings.structure
    there = structure.leaves(structure.axis(target.tensor, target.dim))
    shared = [leaf for leaf in structure.leaves(structure.axis(source.tensor, source.dim)) if leaf in there]
    if not shared:
        return None
    leaf = next((leaf for leaf in shared if not leaf.pinned), shared[0])
    name = next((f"group {group.name}" for group in structure.groups if group.leaf is leaf), "pinned")
    for place, trail in couplings.walk(source, leaf):
        if place == target:
            return Coupling(source, target, name, hops(trail))
    return Coupling(source, target, name, (), reached=False)


def _hop(hop: Hop) -> dict[str, str]:
    return {"from": str(hop.source), "op": hop.op, "node": hop.node, "to": str(hop.target)}


def _way(way: Sequence[Hop]) -> list[str]:
    """A chain of hops: where it starts, then one line an operator."""
    return [*(str(hop.source) for hop in way[:1]), *(f"-[{hop.op} '{hop.node}']-> {hop.target}" for hop in way)]
