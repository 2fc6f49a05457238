"""What the tensors between operators take: how many elements there are, and how many bytes of them are alive at once.

The peak is that of a run in reading order: a tensor is alive from the call that makes it to the last one that reads it,
an input of the program from its beginning, an output to its end. At each call its operands and its results are alive
together: no result takes over the memory of an operand, and views count as copies, so that a runtime that does either
stays below the number. Weights and an operator's scratch memory are not part of it, nor are tensors of unknown rank.
Sizes are those of the cost model: a symbolic batch counts as what is known of it, and as 1 by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis
from graphprune.cost import Term
from graphprune.structure import Structure

__all__ = ["Activations"]

_HALF = 1 << 31

ITEMSIZE = 4
"""Bytes of an element where the host does not say."""

Integers: TypeAlias = npt.NDArray[np.int64]


class Activations:
    """The activations of ``structure`` as functions of the extents of axes; ``term`` turns axes into such functions.

    Tensors whose sizes depend on the same extents are evaluated once.
    """

    def __init__(self, structure: Structure, term: Callable[[Iterable[Axis]], Term]) -> None:
        self._factors: dict[tuple[int, ...], int] = {}
        self._made = _made(structure)
        names, events, self._calls = _events(structure, self._made)
        terms = [term(structure.tensors.get(name) or ()) for name in names]
        numbers = [self._factors.setdefault(each.slots, len(self._factors)) for each in terms]
        weights = [
            math.ceil(each.coefficient * structure.itemsizes.get(name, ITEMSIZE))
            for name, each in zip(names, terms, strict=True)
        ]
        place = {name: index for index, name in enumerate(names)}
        self._factor = np.array([numbers[place[name]] for name, _ in events], np.intp)
        self._weight = _integers([sign * weights[place[name]] for name, sign in events])
        results = [place[name] for name in names if name in self._made]
        self._result_factor = np.array([numbers[index] for index in results], np.intp)
        self._result_count = _integers([terms[index].coefficient for index in results])

    def elements(self, extents: Sequence[int]) -> int:
        """How many elements the results of all operators have together."""
        return int((self._values(extents)[self._result_factor] * self._result_count).sum())

    def peak(self, extents: Sequence[int]) -> int:
        """The most bytes that are alive at once."""
        return int(self.live(extents).max(initial=0))

    def live(self, extents: Sequence[int]) -> Integers:
        """The bytes alive during each call."""
        running: Integers = np.cumsum(self._values(extents)[self._factor] * self._weight)
        return running[self._calls]

    def _values(self, extents: Sequence[int]) -> Integers:
        return _integers([math.prod([extents[slot] for slot in slots]) for slots in self._factors] or [0])


def _integers(values: Sequence[int]) -> Integers:
    """Whole numbers as an array; of any size where a product of two would not fit (sizes in a damaged model)."""
    small = all(-_HALF < value < _HALF for value in values)
    return np.array(values, np.int64 if small else object)


def _made(structure: Structure) -> set[str]:
    return {name for call in structure.calls for name in call.results if name in structure.tensors}


def _events(structure: Structure, made: set[str]) -> tuple[list[str], list[tuple[str, int]], npt.NDArray[np.intp]]:
    """All activations; when each begins (1) and ends (-1) to be alive; and after which event each call runs."""
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    known = structure.tensors.keys() - structure.parameters.keys()
    for number, call in enumerate(structure.calls):
        read = [operand.name for operand in call.operands if operand is not None and operand.name in known]
        for name in dict.fromkeys((*read, *call.border, *call.results)):
            if name in known:
                first.setdefault(name, number)
                last[name] = number
    end = len(structure.calls)
    for name in structure.outputs:
        if name in known:
            last[name] = end
            first.setdefault(name, end)
    for name in structure.inputs:
        if name in first and name not in made:
            first[name] = 0
    begins: dict[int, list[str]] = {}
    ends: dict[int, list[str]] = {}
    for name in first:
        begins.setdefault(first[name], []).append(name)
        ends.setdefault(last[name], []).append(name)
    events: list[tuple[str, int]] = []
    calls: list[int] = []
    for number in range(end + 1):
        events.extend((name, 1) for name in begins.get(number, ()))
        if events:
            calls.append(len(events) - 1)
        events.extend((name, -1) for name in ends.get(number, ()))
    return list(first), events, np.array(calls, np.intp)
