"""Seconds of a kernel at any widths, by linear interpolation between those that were measured.

A kernel of up to two slots has a grid of widths, and is interpolated in each direction: a convolution's work is a
product of channels in and out, which such an interpolation has exactly. Where there are more slots, all are cut by one
share, and what is between is looked up by the work (:meth:`~.kernels.Kernel.work`). Below the narrowest width the last
line goes on, since calling an operator takes some time for however few channels; where a single width was measured,
no width takes no time.

>>> table = Grid(((32, 64), (0, 32)), np.array([[0.0, 1.0], [0.0, 3.0]]))
>>> table.at((48, 32)), table.at((64, 16)), table.at((16, 32))
(2.0, 1.5, 0.0)
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from graphprune.backends.latency.kernels import Kernel
from graphprune.cost import CostModel

__all__ = [
    "ALIGNED",
    "SHARES",
    "Curve",
    "Grid",
    "Table",
    "Widths",
    "grid_widths",
    "is_joint",
    "level_widths",
    "table_of",
    "widths_reader",
]

Widths: TypeAlias = tuple[int, ...]
"""The extents of a kernel's slots, in their order."""

SHARES = ((1.0,), (0.5, 1.0), (0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0))
"""The shares of a width that are measured, coarse to fine; each has those before it."""
ALIGNED = 16
"""Widths above four times this are measured at multiples of it, so that no table has a cliff inside."""
JOINT = 2
"""The most slots whose widths are measured independently."""


@dataclass(frozen=True)
class Grid:
    """Times on a grid: ``axes`` has some widths of each slot, two at least, ``seconds`` one time for each point."""

    axes: tuple[Widths, ...]
    seconds: np.ndarray[Any, np.dtype[np.float64]]

    def at(self, widths: Widths) -> float:
        """The seconds at ``widths``; beyond the grid the last line goes on."""
        values = self.seconds
        for axis, width in zip(self.axes, widths, strict=True):
            place = min(max(bisect_right(axis, width), 1), len(axis) - 1)
            low, high = axis[place - 1], axis[place]
            part = (width - low) / (high - low)
            values = values[place - 1] + part * (values[place] - values[place - 1])
        return max(float(values), 0.0)


@dataclass(frozen=True)
class Curve:
    """Times by work, both rising from no work, of a kernel whose slots are cut together."""

    kernel: Kernel
    works: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, widths: Widths) -> float:
        """The seconds at ``widths``."""
        work = self.kernel.work(dict(zip(self.kernel.slots, widths, strict=True)))
        return float(np.interp(work, self.works, self.seconds))


Table: TypeAlias = Grid | Curve


def grid_widths(width: int, level: int) -> Widths:
    """The widths of a slot that are measured at ``level`` of fineness, ascending.

    >>> grid_widths(256, 3), grid_widths(24, 2), grid_widths(3, 3)
    ((32, 64, 128, 256), (6, 12, 24), (1, 2, 3))
    """
    found = set()
    for share in SHARES[level]:
        own = width * share
        rounded = round(own / ALIGNED) * ALIGNED if width >= 4 * ALIGNED and share < 1 else round(own)
        found.add(min(max(rounded, 1), width))
    return tuple(sorted(found))


def is_joint(kernel: Kernel, cost: CostModel) -> bool:
    """Whether the slots of a kernel are cut together: there are many, or one follows from others, or it makes parts."""
    derived = any(slot >= cost.basic for slot in kernel.slots)
    parts = len(kernel.nodes[-1].outputs) > 1 or (kernel.op == "Concat" and len(kernel.slots) > 1)
    return len(kernel.slots) > JOINT or (derived and parts)


def level_widths(kernel: Kernel, cost: CostModel, level: int) -> list[Widths]:
    """The points that are measured of a kernel at ``level``, the full widths first."""
    if not kernel.slots:
        return [()]
    if is_joint(kernel, cost):
        return [_joint(kernel, cost, share) for share in reversed(SHARES[level])]
    axes = [grid_widths(width, level) for width in kernel.full]
    return list(itertools.product(*(axis[::-1] for axis in axes)))


def _joint(kernel: Kernel, cost: CostModel, share: float) -> Widths:
    kept = {group.leaf: max(1, round(group.size * share)) for group in cost.structure.groups}
    extents = cost.extents(kept)
    return tuple(extents[slot] for slot in kernel.slots)


def table_of(kernel: Kernel, cost: CostModel, times: Mapping[Widths, float]) -> Table | None:
    """The table of a kernel from measured ``times``, by the finest level that is whole; None where there is none."""
    for level in reversed(range(len(SHARES))):
        points = level_widths(kernel, cost, level)
        if not all(point in times for point in points):
            continue
        if is_joint(kernel, cost):
            known = {kernel.work(dict(zip(kernel.slots, point, strict=True))): times[point] for point in points}
            works = sorted(known)
            return Curve(kernel, (0.0, *works), (_without_work(known), *(known[work] for work in works)))
        axes = tuple(_with_another(grid_widths(width, level)) for width in kernel.full)
        seconds = np.zeros([len(axis) for axis in axes])
        for place in np.ndindex(*seconds.shape):
            seconds[place] = times.get(tuple(axis[index] for axis, index in zip(axes, place, strict=True)), 0.0)
        return Grid(axes, seconds)
    return None


def _with_another(axis: Widths) -> Widths:
    return axis if len(axis) > 1 else (0, *axis)


def _without_work(known: Mapping[float, float]) -> float:
    """Where the line through the two least works leads to."""
    if len(known) < 2:
        return 0.0
    low, high = sorted(known)[:2]
    return max(known[low] - low * (known[high] - known[low]) / (high - low), 0.0)


def widths_reader(kernel: Kernel) -> Callable[[Sequence[int]], Widths]:
    """A function from all extents to the widths of a kernel's slots."""
    if len(kernel.slots) > 1:
        return itemgetter(*kernel.slots)
    return lambda extents: tuple([extents[slot] for slot in kernel.slots])
