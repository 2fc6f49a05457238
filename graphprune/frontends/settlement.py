"""Sizes that the graph computes must follow every cut, or what they are computed from is pinned.

A number that is known can be overwritten when the cut is carried out. One that holds a symbol (batch times heads, say)
stays computed, so it has to come out right by itself: that is tried with made-up selections, which keep a different
number of positions of every leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.axes import Axis, Leaf
from graphprune.elements import Element
from graphprune.rules.call import InputTarget, LengthSite
from graphprune.selection import Selection
from graphprune.sizes import Size
from graphprune.structure import Structure

__all__ = ["can_infer", "settle"]

TRIALS = 3
_INFERRING = ("onnx.Reshape", "aten.view", "aten.reshape", "aten._unsafe_view", "aten.unflatten")
REASON = "a computed number that would not follow the cut"


def settle(structure: Structure) -> None:
    """Pin the axes behind numbers that a cut would make wrong and that no site can mend."""
    for call in structure.calls:
        if not call.spelled:
            continue
        sites = {
            (site.target.operand, site.target.index): site
            for site in call.sites
            if isinstance(site, LengthSite) and isinstance(site.target, InputTarget)
        }
        for number in call.spelled:
            operand = call.operand(number)
            elements = operand.elements or () if operand is not None else ()
            spare = can_infer(call.op, elements)
            for index, element in enumerate(elements):
                site = sites.get((number, index))
                axes = (*(site.axes if site is not None else ()), *element.depends)
                if _settles(structure, axes, element, site):
                    continue
                if spare and site is not None:
                    spare = False
                else:
                    call.pin(axes, REASON)


def can_infer(op: str, elements: Sequence[Element]) -> bool:
    """Whether one number may be left to the operator to work out, as -1 in the target of a reshape."""
    return op in _INFERRING and all(element.value != -1 for element in elements)


def _settles(structure: Structure, axes: Sequence[Axis], element: Element, site: LengthSite | None) -> bool:
    if not axes or (element.literal and isinstance(element.value, int) and _known(site)):
        return True
    free = list(dict.fromkeys(leaf for axis in axes for leaf in structure.leaves(axis) if not leaf.pinned))
    return not free or all(_follows(structure, free, element, site, trial) for trial in range(TRIALS))


def _known(site: LengthSite | None) -> bool:
    """Whether what a site must say is a number, which can simply be written."""
    return site is None or all(isinstance(axis.size, int) for axis in site.axes)


def _follows(structure: Structure, free: Sequence[Leaf], element: Element, site: LengthSite | None, trial: int) -> bool:
    keep = {}
    for order, leaf in enumerate(free):
        size = int(leaf.size)  # type: ignore[arg-type]
        keep[leaf] = np.arange(size) < 1 + (order + trial) % size
    selection = Selection(structure.space, keep)
    wanted: Size | None = element.value
    if site is not None:
        counts = [selection.count(axis) for axis in site.axes]
        if all(isinstance(count, int) for count in counts):
            return True
        wanted = counts[0] if len(counts) == 1 and not site.offset else None
    return wanted is not None and element.after(selection) == wanted
