"""Cliffs: widths that take longer than their neighbours, because vectors of the processor are not filled.

From the heaviest kernel of each kind, widths ``b - 1``, ``b - 2``, ``b - 4``, ... just below a multiple ``b`` of 32 are
measured, which are multiples of 1, 2, 4, ... and of nothing more, and compared with the line through ``b`` and
``b - 32``. How much longer they take is the *excess* of that multiple. The smallest multiple from which on there is no
excess is what widths should be rounded to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphprune.backends.latency.kernels import Kernel
from graphprune.backends.latency.tables import Widths

__all__ = ["ALLOWED", "Cliff", "cliff_of", "fitting", "multiple_of", "probes"]

WHOLE = 32
"""Twice the widest vectors of processors, in single precision; wider steps are not looked for."""
STEPS = (1, 2, 4, 8, 16)
ALLOWED = 0.1
"""The excess that is not called a cliff; single operators are measured to a few per cent."""


@dataclass(frozen=True, slots=True)
class Cliff:
    """For a kind of layer and a role of its slot, the excess of widths by the greatest power of two that they have."""

    kind: str
    role: str
    excess: Mapping[int, float]

    @property
    def multiple(self) -> int:
        """The smallest power of two from which on no excess is a cliff; 1 where nothing is."""
        bad = [step for step in STEPS if self.excess.get(step, 0.0) > ALLOWED]
        return 2 * max(bad) if bad else 1

    def factor(self, width: int) -> float:
        """How many times longer a width takes than a line between rounded ones says."""
        return 1.0 + max(self.excess.get(min(width & -width, WHOLE), 0.0), 0.0)

    @property
    def text(self) -> str:
        """One line: the multiple and the reason for it."""
        where = {"in": "channels that go in", "out": "channels that come out", "through": "channels"}[self.role]
        if self.multiple == 1:
            return f"{self.kind}, {where}: any width, none is slower than its neighbours"
        worst = max(self.excess, key=lambda step: self.excess[step])
        return (
            f"{self.kind}, {where}: multiples of {self.multiple}, since others take up to "
            f"{self.excess[worst]:.0%} longer than the line between multiples of {WHOLE}"
        )


def probes(kernel: Kernel, slot: int) -> list[tuple[int, Widths]]:
    """What is measured of a slot: each step, 0 and 32 being the ends of the line, and the widths.

    Of narrow layers wider ones are measured, since a cliff is the machine's.
    """
    place = kernel.slots.index(slot)
    wide = [max(width // WHOLE * WHOLE, WHOLE) for width in kernel.full]
    top = max(int(0.75 * kernel.full[place]) // WHOLE * WHOLE, 2 * WHOLE)
    return [(step, (*wide[:place], top - step, *wide[place + 1 :])) for step in (0, *STEPS, WHOLE)]


def cliff_of(kernel: Kernel, slot: int, measure: Callable[[Kernel, Widths], float | None]) -> Cliff | None:
    """The cliff along a slot; None where it could not be measured."""
    times: dict[int, float] = {}
    for step, widths in probes(kernel, slot):
        found = measure(kernel, widths)
        if found is None:
            return None
        times[step] = found
    slope = max(times[0] - times[WHOLE], 0.0) / WHOLE
    excess = {step: times[step] / (times[0] - step * slope) - 1 for step in STEPS}
    return Cliff(kernel.kind, kernel.role(slot), excess)


def multiple_of(channels: int, multiple: int) -> int:
    """How many positions of so many channels each make a multiple of channels.

    >>> multiple_of(1, 16), multiple_of(64, 16), multiple_of(12, 16)
    (16, 1, 4)
    """
    return multiple // math.gcd(channels, multiple)


def fitting(size: int, multiple: int) -> int:
    """``multiple`` halved until a group of ``size`` positions has two of it.

    >>> fitting(256, 16), fitting(24, 16), fitting(3, 16)
    (16, 8, 1)
    """
    while multiple > 1 and size < 2 * multiple:
        multiple //= 2
    return multiple
