"""Cliffs: widths that take longer than their neighbours, because vectors of the processor are not filled.

From the heaviest kernel of each kind, widths 63, 62, 60, 56 and 48 are measured, which are multiples of 1, 2, 4, 8 and
16 and of nothing more, and compared with the line through 64 and 32. How much longer they take is the *excess* of that
multiple: it is large where the runtime takes another way for such widths. Where vectors are filled up, a step *saves*
nothing until the next vector goes. The smallest multiple from which on neither is seen is what widths are rounded to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from graphprune.backends.latency.kernels import Kernel
from graphprune.backends.latency.tables import Widths

__all__ = ["ALLOWED", "Cliff", "cliff_of", "fitting", "multiple_of", "probes"]

WHOLE = 32
"""Twice the widest vectors of processors, in single precision; wider steps are not looked for."""
TOP = 64
"""The width that others are compared with: the narrower it is, the more a vector that is not filled shows."""
STEPS = (1, 2, 4, 8, 16)
ALLOWED = 0.1
"""The excess that is not called a cliff; single operators are measured to a few per cent."""
TOLD = 4
"""The narrowest step whose saving can be told from noise."""


@dataclass(frozen=True, slots=True)
class Cliff:
    """For a kind of layer and a role of its slot, the excess of widths by the greatest power of two that they have.

    ``saved`` is how much of the time that a step should save it does save, for steps where that can be told.
    """

    kind: str
    role: str
    excess: Mapping[int, float]
    saved: Mapping[int, float] = field(default_factory=dict)

    @property
    def multiple(self) -> int:
        """The smallest power of two from which on no width is slow, and each step saves time; 1 where nothing is."""
        slow = [step for step in STEPS if self._is_slow(step) or self.saved.get(step, 1.0) < 0.5]
        return 2 * max(slow) if slow else 1

    def factor(self, width: int) -> float:
        """How many times longer a width takes than a line between rounded ones says."""
        step = min(width & -width, WHOLE)
        if self._is_slow(step):
            return 1.0 + self.excess[step]
        filled = -width % self.multiple if self.saved.get(self.multiple // 2, 1.0) < 0.5 else 0
        return 1.0 + filled / width

    def _is_slow(self, step: int) -> bool:
        """Whether more is lost than the vector that is not filled."""
        return self.excess.get(step, 0.0) > ALLOWED + step / (TOP - step)

    @property
    def text(self) -> str:
        """One line: the multiple and the reason for it."""
        where = {"in": "channels that go in", "out": "channels that come out", "through": "channels"}[self.role]
        slow = [step for step in STEPS if self._is_slow(step)]
        if slow:
            worst = max(slow, key=lambda step: self.excess[step])
            why = f"multiples of {self.multiple}, since others take up to {self.excess[worst]:.0%} longer"
        elif self.multiple > 1:
            why = f"multiples of {self.multiple}, since fewer channels than the next multiple save no time"
        else:
            why = "any width, none is slower than its neighbours"
        return f"{self.kind}, {where}: {why}"


def probes(kernel: Kernel, slot: int) -> list[tuple[int, Widths]]:
    """What is measured of a slot: each step, 0 and 32 being the ends of the line, and the widths.

    Of narrow layers wider ones are measured, since a cliff is the machine's.
    """
    place = kernel.slots.index(slot)
    wide = [max(width // WHOLE * WHOLE, WHOLE) for width in kernel.full]
    return [(step, (*wide[:place], TOP - step, *wide[place + 1 :])) for step in (0, *STEPS, WHOLE)]


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
    # Where the line is flat, width hardly matters, and no step can save anything.
    steep = slope * WHOLE > ALLOWED * times[0]
    saved = {step: (times[0] - times[step]) / (step * slope) for step in STEPS if step >= TOLD} if steep else {}
    return Cliff(kernel.kind, kernel.role(slot), excess, saved)


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
