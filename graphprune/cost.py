"""What a program costs under a selection: exact multiply-accumulates, parameters and bytes.

Costs depend on how many positions of each leaf are kept, not on which, so a :class:`CostModel` is compiled once into
products of axis extents: the terms that no group can change are summed beforehand, equal terms are merged, and each
distinct axis is counted once per evaluation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from graphprune.axes import Axis, Concat, Leaf, Product
from graphprune.rules.call import Call
from graphprune.selection import Selection
from graphprune.sizes import Size, Symbolic
from graphprune.structure import Parameter, Structure

if TYPE_CHECKING:
    from graphprune.activations import Activations

__all__ = ["CostModel", "Counts", "Sizes", "Term", "Widths"]

Sizes = Mapping[str, Sequence[int | None]]
"""Sizes of a program's tensors by name, as numbers; what is not known is None."""

Widths = Mapping[Leaf, int]
"""How many positions of each leaf are kept; a leaf that is not named keeps all."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters (elements of the weights that count), multiply-accumulates, and bytes of everything stored.

    ``peak``, the most bytes of activations alive at once (:mod:`graphprune.activations`), is counted where it is asked
    for, and so are the nanoseconds of ``latency`` that tables predict (:mod:`graphprune.pace`).
    """

    params: int
    macs: int
    bytes: int
    peak: int | None = field(default=None, compare=False)
    latency: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Term:
    """``coefficient`` times the product of the extents in ``slots``."""

    coefficient: int
    slots: tuple[int, ...]

    def value(self, extents: Sequence[int]) -> int:
        """The number this is."""
        return self.coefficient * math.prod(extents[slot] for slot in self.slots)


@dataclass(frozen=True, slots=True)
class _Step:
    """How one compound extent follows from others: ``constant`` times their product, or plus their sum."""

    slot: int
    adds: bool
    constant: int
    parts: tuple[int, ...]


class CostModel:
    """The costs of ``structure`` as functions of what is kept.

    ``sizes`` gives numbers to symbolic dimensions (:func:`~graphprune.frontends.onnx_sizes.concrete_sizes` finds them
    for an ONNX model); a dimension about which nothing is known counts as 1.
    """

    def __init__(self, structure: Structure, sizes: Sizes | None = None) -> None:
        self.structure = structure
        self._space = structure.space
        self._numbers, self._symbols = _numbers(structure, sizes or {})
        self._slots: dict[Leaf, int] = {}
        self._full: list[int] = []
        for group in structure.groups:
            self._slots[group.leaf] = len(self._full)
            self._full.append(group.size)
        self.basic = len(self._full)
        """Slots below this are groups, in their order; the extents of the others follow from those."""
        self._steps: list[_Step] = []
        self._known: dict[int, int | Term] = {}
        self._axes: list[Axis] = []  # keeps the objects alive whose ids are keys of _known
        self.contractions: list[tuple[Call, Sequence[Axis], Term]] = [
            (call, axes, self.term(axes)) for call in structure.calls for axes in call.contractions
        ]
        self.parameters: list[tuple[Parameter, Term]] = [
            (parameter, self.term(structure.tensors[name] or ())) for name, parameter in structure.parameters.items()
        ]
        self._macs = _Sum(term for _, _, term in self.contractions)
        self._params = _Sum(term for parameter, term in self.parameters if parameter.counts)
        self._bytes = _Sum(
            Term(term.coefficient * int(parameter.itemsize), term.slots)
            for parameter, term in self.parameters
            if parameter.itemsize >= 1
        )
        self._packed = [(parameter.itemsize, term) for parameter, term in self.parameters if parameter.itemsize < 1]

    def of(self, selection: Selection) -> Counts:
        """The cost under ``selection``."""
        return self.at({leaf: int(np.count_nonzero(mask)) for leaf, mask in selection.keep.items()})

    def at(self, widths: Widths, peak: bool = False) -> Counts:
        """The cost where ``widths`` positions are kept of each leaf."""
        activations = self.activations if peak else None
        extents = self.extents(widths)
        packed = sum(math.ceil(itemsize * term.value(extents)) for itemsize, term in self._packed)
        most = None if activations is None else activations.peak(extents)
        return Counts(self._params(extents), self._macs(extents), self._bytes(extents) + packed, most)

    @cached_property
    def activations(self) -> Activations:
        """What tensors between operators take."""
        from graphprune.activations import Activations

        return Activations(self.structure, self.term)

    @cached_property
    def total(self) -> Counts:
        """The cost of the whole program."""
        return self.at({})

    @cached_property
    def floor(self) -> Counts:
        """What is left where every group is emptied: the part that no selection can reach."""
        return self.at(dict.fromkeys(self._slots, 0))

    def extents(self, widths: Widths) -> list[int]:
        """The extents that the slots of a :class:`Term` number."""
        extents = self._full.copy()
        for leaf, width in widths.items():
            slot = self._slots.get(leaf)
            if slot is not None:
                extents[slot] = width
        for step in self._steps:
            parts = [extents[part] for part in step.parts]
            extents[step.slot] = step.constant + sum(parts) if step.adds else step.constant * math.prod(parts)
        return extents

    def parts(self, slot: int) -> frozenset[int]:
        """The slots of groups that an extent follows from; a group's own is itself."""
        if slot < self.basic:
            return frozenset([slot])
        step = next(step for step in self._steps if step.slot == slot)
        return frozenset().union(*(self.parts(part) for part in step.parts))

    def number(self, size: Size) -> int:
        """A size as a number."""
        if isinstance(size, Symbolic):
            return size.coefficient * math.prod(self._symbols.get(name, 1) for name in size.symbols)
        return size

    # -- compiling ------------------------------------------------------------------------------------------------

    def term(self, axes: Iterable[Axis]) -> Term:
        """The product of the extents of ``axes``; take it before the extents that it is to be evaluated at."""
        coefficient = 1
        slots: list[int] = []
        for axis in axes:
            extent = self._extent(axis)
            if isinstance(extent, int):
                coefficient *= extent
            else:
                coefficient *= extent.coefficient
                slots.extend(extent.slots)
        return Term(coefficient, tuple(sorted(slots)))

    def _extent(self, axis: Axis) -> int | Term:
        """The extent of an axis: a number where no group has a part in it."""
        axis = self._space.find(axis)
        known = self._known.get(id(axis))
        if known is None:
            for node in self._space.postorder(axis, self._known):
                self._axes.append(node)
                self._known[id(node)] = self._compiled(node)
            known = self._known[id(axis)]
        return known

    def _compiled(self, node: Axis) -> int | Term:
        if isinstance(node, Leaf):
            slot = self._slots.get(node)
            return self._number_of(node) if slot is None else Term(1, (slot,))
        parts = [self._known[id(part)] for part in self._space.parts(node)]
        if isinstance(node, Product):
            return _product(parts)
        constant = sum(part for part in parts if isinstance(part, int))
        terms = [part for part in parts if isinstance(part, Term)]
        return Term(1, (self._step(True, constant, [self._single(term) for term in terms]),)) if terms else constant

    def _single(self, term: Term) -> int:
        """The slot of one extent that equals ``term``."""
        if term.coefficient == 1 and len(term.slots) == 1:
            return term.slots[0]
        return self._step(False, term.coefficient, term.slots)

    def _step(self, adds: bool, constant: int, parts: Sequence[int]) -> int:
        slot = len(self._full)
        self._full.append(0)
        self._steps.append(_Step(slot, adds, constant, tuple(parts)))
        return slot

    def _number_of(self, leaf: Leaf) -> int:
        return self._numbers[leaf] if leaf in self._numbers else self.number(leaf.size)


class _Sum:
    """A sum of terms, equal ones merged."""

    def __init__(self, terms: Iterable[Term]) -> None:
        merged: defaultdict[tuple[int, ...], int] = defaultdict(int)
        for term in terms:
            merged[term.slots] += term.coefficient
        self._constant = merged.pop((), 0)
        self._terms = [Term(coefficient, slots) for slots, coefficient in merged.items()]

    def __call__(self, extents: Sequence[int]) -> int:
        return self._constant + sum(term.value(extents) for term in self._terms)


def _product(parts: Iterable[int | Term]) -> int | Term:
    coefficient = 1
    slots: list[int] = []
    for part in parts:
        if isinstance(part, int):
            coefficient *= part
        else:
            coefficient *= part.coefficient
            slots.extend(part.slots)
    return Term(coefficient, tuple(slots)) if slots else coefficient


def _numbers(structure: Structure, sizes: Sizes) -> tuple[dict[Leaf, int], dict[str, int]]:
    """Numbers of symbolic leaves, and of symbols, as far as the numbers of whole tensors tell them."""
    numbers: dict[Leaf, int] = {}
    symbols: dict[str, int] = {}
    products: list[tuple[Product, int]] = []
    find = structure.space.find
    for name, known in sizes.items():
        axes = structure.tensors.get(name)
        if axes is None or len(axes) != len(known):
            continue
        for stated, number in zip(axes, known, strict=True):
            axis = find(stated)
            for size in (stated.size, axis.size):
                if number is not None and isinstance(size, Symbolic) and len(size.symbols) == 1:
                    symbols.setdefault(size.symbols[0], number // size.coefficient)
            if number is None or not isinstance(axis.size, Symbolic):
                continue
            if isinstance(axis, Leaf):
                numbers.setdefault(axis, number)
            elif isinstance(axis, Product):
                products.append((axis, number))
    for axis, number in products:
        parts = [part for part in structure.leaves(axis) if isinstance(part.size, Symbolic) and part not in numbers]
        if len(parts) == 1 and not any(isinstance(node, Concat) for node in structure.space.postorder(axis)):
            rest = [numbers.get(part, part.size) for part in structure.leaves(axis) if part not in parts]
            numbers[parts[0]] = number // math.prod(size for size in rest if isinstance(size, int))
    return numbers, symbols
