"""What must be hidden from one operator so that it does not see what a selection removes, whatever the host.

A *sum* over a cut axis reads zero at the removed positions of an operand; an operator that takes *statistics* over one
reads the kept positions of its operands, and its results are spread out again to full size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, InputTarget, LengthSite, Mix
from graphprune.selection import Mask, Selection
from graphprune.sizes import Size
from graphprune.structure import Structure

__all__ = ["Hidden", "Spot", "hidden", "repeating"]

Spot = tuple[int, int]
"""The number of an operand or result, and a dimension of it."""


@dataclass(slots=True)
class Hidden:
    """For each place the positions that may be seen, and new values for the numbers that spell gathered sizes.

    ``positions`` are results whose numbers count the positions that may be seen, and must count all of them again.
    ``neutral`` is the operand that holds what stands for zero in a zeroed operand. Where a dimension has a symbolic
    factor, the mask is that of its known part, which ``outer`` tells to stand before the symbolic one, or after it.
    """

    zeroed: dict[Spot, Mask] = field(default_factory=dict)
    gathered: dict[Spot, Mask] = field(default_factory=dict)
    spread: dict[Spot, Mask] = field(default_factory=dict)
    positions: dict[int, Mask] = field(default_factory=dict)
    neutral: dict[int, int | None] = field(default_factory=dict)
    lengths: dict[AttributeTarget | InputTarget, int] = field(default_factory=dict)
    outer: dict[tuple[str, Spot], bool] = field(default_factory=dict)

    def same(self, other: Hidden) -> bool:
        """Whether two instances of one operator hide the same."""
        ours, theirs = self._plain(), other._plain()
        return ours == theirs

    def _plain(self) -> object:
        masks: list[Mapping[Spot, Mask]] = [self.zeroed, self.gathered, self.spread]
        plain = [{spot: mask.tobytes() for spot, mask in each.items()} for each in masks]
        counted = {number: mask.tobytes() for number, mask in self.positions.items()}
        return plain, counted, self.neutral, self.lengths


def hidden(structure: Structure, call: Call, selection: Selection, results: Sequence[str]) -> Hidden | None:
    """What ``selection`` asks to be hidden from the operator of ``call``; None where it mixes nothing that is cut.

    ``results`` are the names of the tensors that it makes.

    Raises:
        ValueError: a cut axis has a symbolic factor in a place where no constant mask fits it.
    """
    mixes = [mix for mix in call.mixes if selection.cuts(mix.axis)]
    if not mixes:
        return None
    found = Hidden()
    for mix in mixes:
        places = found.zeroed if mix.kind == "sum" else found.gathered
        for number, dim in mix.operands:
            _meet(
                places,
                (number, dim),
                _mask(structure, selection, mix, _axes(call, number), (number, dim), found, "operand"),
            )
            if mix.kind == "sum":
                found.neutral[number] = mix.neutral
        for number, dim in mix.results:
            made = structure.tensors[results[number]]
            assert made is not None
            _meet(found.spread, (number, dim), _mask(structure, selection, mix, made, (number, dim), found, "result"))
        for number in mix.positions:
            found.positions[number] = selection.mask(mix.axis)
    gone = [leaf for mix in mixes if mix.kind == "statistics" for leaf in structure.leaves(mix.axis)]
    only = Selection(selection.space, {leaf: selection.keep[leaf] for leaf in gone if leaf in selection.keep})
    found.lengths = dict(_lengths(call, only))
    return found


def repeating(kept: Mask) -> npt.NDArray[np.int64]:
    """For each position which kept one it repeats when what was gathered is spread: the one before, or the first."""
    index: npt.NDArray[np.int64] = np.maximum(np.cumsum(kept) - 1, 0).astype(np.int64)
    return index


def _mask(
    structure: Structure, selection: Selection, mix: Mix, axes: Axes, spot: Spot, found: Hidden, side: str
) -> Mask:
    """What the selection keeps of a dimension as far as it concerns the axis of ``mix``."""
    axis, outer = _known(structure, axes[spot[1]])
    if outer is not None:
        found.outer[side, spot] = outer
    if axis is structure.space.find(mix.axis):
        return selection.mask(axis)
    leaves = structure.leaves(mix.axis)
    own = {leaf: selection.keep[leaf] for leaf in leaves if leaf in selection.keep}
    return Selection(selection.space, own).mask(axis)


def _known(structure: Structure, axis: Axis) -> tuple[Axis, bool | None]:
    """The part of an axis that has a known size, and whether it stands before a symbolic one (None: it is all)."""
    space = structure.space
    axis = space.find(axis)
    if isinstance(axis.size, int):
        return axis, None
    parts = space.parts(axis) or (axis,)
    first = list(itertools.takewhile(_is_known, parts))
    last = list(itertools.takewhile(_is_known, reversed(parts)))[::-1]
    if first and not structure.free(parts[len(first) :]):
        return space.product(first), True
    if last and not structure.free(parts[: len(parts) - len(last)]):
        return space.product(last), False
    raise ValueError("positions are mixed along an axis of symbolic size")


def _is_known(axis: Axis) -> bool:
    return isinstance(axis.size, int)


def _lengths(call: Call, only: Selection) -> Iterator[tuple[AttributeTarget | InputTarget, int]]:
    for site in call.sites:
        if isinstance(site, LengthSite) and any(map(only.cuts, site.axes)):
            counts: list[Size] = [only.count(axis) for axis in site.axes]
            yield site.target, site.offset + sum(count for count in counts if isinstance(count, int))


def _axes(call: Call, number: int) -> Axes:
    operand = call.operand(number)
    if operand is None or operand.axes is None:
        raise ValueError(f"{call.op} '{call.node}' mixes an operand without axes")
    return operand.axes


def _meet(places: dict[Spot, Mask], spot: Spot, kept: Mask) -> None:
    places[spot] = places[spot] & kept if spot in places else kept
