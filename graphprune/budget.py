"""How much to keep: a ratio of positions, or what the slim program may cost."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field, fields

from graphprune.cost import Counts
from graphprune.errors import UsageError
from graphprune.text import scaled

__all__ = ["Amount", "Budget", "parse_amount", "parse_latency"]

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|[kKmMgGtT]?i?)\s*[bB]?")


@dataclass(frozen=True, slots=True)
class Amount:
    """A share of what there is now (``relative``), or an absolute number, of nanoseconds where it is a ``time``."""

    value: float
    relative: bool = False
    time: bool = field(default=False, repr=False)

    def of(self, total: int) -> int:
        """The number that may be kept of ``total``."""
        return math.floor(self.value * total + 1e-9) if self.relative else math.floor(self.value)

    def __str__(self) -> str:
        if self.time:
            return f"{self.value / 1e6:g} ms"
        return f"{100 * self.value:g}%" if self.relative else scaled(self.value)


def parse_amount(text: str) -> Amount:
    """An amount as people write it: ``50%``, ``2.0G``, ``300k``, ``8MiB``, ``1200000``; ``0.5`` means a half.

    >>> parse_amount("2.5M"), parse_amount("40%")
    (Amount(value=2500000.0, relative=False), Amount(value=0.4, relative=True))

    Raises:
        UsageError: the text says something else.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match[2].lower() == "i":
        raise UsageError(f"'{text}' is no amount; write a share such as 50% or a number such as 2.0G, 300k or 8MiB")
    value, unit = float(match[1]), match[2].lower()
    if unit == "%":
        return Amount(value / 100, relative=True)
    if not unit and 0 < value < 1:
        return Amount(value, relative=True)
    return Amount(value * (_BINARY.get(unit) or _SCALES[unit]))


def parse_latency(text: str) -> Amount:
    """A latency as people write it: ``50%`` of what it is, or ``8ms``, ``0.3 s``, ``700us``.

    >>> str(parse_latency("8ms")), parse_latency("0.25 s").value, parse_latency("50%").relative
    ('8 ms', 250000000.0, True)

    Raises:
        UsageError: the text says something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|ms|s)", text.strip())
    if match is not None:
        return Amount(float(match[1]) * _SECONDS[match[2]], time=True)
    with contextlib.suppress(UsageError):
        share = parse_amount(text)
        if share.relative:
            return share
    raise UsageError(f"'{text}' is no latency; write a share of the dense model's, such as 50%, or a time: 8ms")


@dataclass(frozen=True, slots=True)
class Budget:
    """Either ``ratio``, the share of positions to remove, or targets: what may be kept of each cost.

    Of several targets all are met. ``peak`` is the bytes of activations alive at once (:mod:`graphprune.activations`),
    ``latency`` what tables predict (:mod:`graphprune.pace`), in nanoseconds.

    Raises:
        UsageError: nothing is asked for, a ratio comes with targets, or a number is out of range.
    """

    ratio: float | None = None
    macs: Amount | None = None
    params: Amount | None = None
    bytes: Amount | None = None
    peak: Amount | None = None
    latency: Amount | None = None

    def __post_init__(self) -> None:
        targets = self.targets
        if self.ratio is None and not targets:
            raise UsageError(
                "no budget is given: say a ratio, or a target for MACs, parameters, bytes, peak or latency"
            )
        if self.ratio is not None and targets:
            raise UsageError(f"a ratio and a target for {next(iter(targets))} exclude each other; give one of them")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise UsageError(f"ratio {self.ratio:g} is out of range: it is the share to remove, at least 0 and below 1")
        for name, amount in targets.items():
            if not 0 < amount.value < math.inf:
                raise UsageError(f"target {name} {amount} is out of range: it is what to keep, more than 0")
        if self.latency is not None and self.latency.relative and self.latency.value >= 1:
            raise UsageError(f"latency {self.latency} is no less than the dense model's: ask for a smaller share")

    @property
    def targets(self) -> dict[str, Amount]:
        """The targets by name of the cost."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "ratio"}
        return {name: amount for name, amount in named.items() if amount is not None}

    def limits(self, total: Counts) -> dict[str, int]:
        """The targets as numbers; ``total`` counts the peak where that is one of them."""
        return {name: amount.of(getattr(total, name)) for name, amount in self.targets.items()}
