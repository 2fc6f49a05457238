"""Which kinds of positions are cut, and how much of each: ``channel``, ``head=0.25``, ``ffn=0.5:min=64``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from graphprune.errors import UsageError

__all__ = ["Unit", "Units", "parse_units", "unit_texts"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What is asked of the groups of one role.

    ``ratio`` is the share to remove whatever the budget (None: the budget decides), ``min`` the positions that each
    group keeps at least, ``max_ratio`` the share that each loses at most.
    """

    ratio: float | None = None
    min: int = 1
    max_ratio: float = 1.0

    def __post_init__(self) -> None:
        for what, share in (("ratio", self.ratio), ("maximum ratio", self.max_ratio)):
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"{what} {share:g} of a unit is out of range: it must be between 0 and 1")
        if self.min < 1:
            raise UsageError(f"minimum {self.min} of a unit is out of range: it must be at least 1")


Units: TypeAlias = str | Sequence[str] | Mapping[str, "float | Mapping[str, float] | Unit | None"]
"""How units are given: texts as on the command line, or name -> ratio, or name -> the fields of a :class:`Unit`."""

_FIELDS = ("ratio", "min", "max_ratio")


def parse_units(units: Units) -> dict[str, Unit]:
    """The units by role; ``_`` and ``-`` in names stand for spaces.

    >>> parse_units("channel, head=0.25")
    {'channel': Unit(ratio=None, min=1, max_ratio=1.0), 'head': Unit(ratio=0.25, min=1, max_ratio=1.0)}
    >>> parse_units({"head-width": {"ratio": 0.5, "min": 8}})
    {'head width': Unit(ratio=0.5, min=8, max_ratio=1.0)}

    Raises:
        UsageError: a text is no unit, a number is out of range, or a unit is named twice.
    """
    if isinstance(units, Mapping):
        return {_name(name): _unit(name, asked) for name, asked in units.items()}
    texts = units.split(",") if isinstance(units, str) else units
    found: dict[str, Unit] = {}
    for text in texts:
        first, *rest = (part.strip() for part in text.split(":"))
        name, equals, ratio = first.partition("=")
        fields: dict[str, str] = {"ratio": ratio} if equals else {}
        fields.update(
            (key.replace("-", "_").strip(), value) for key, _, value in (part.partition("=") for part in rest)
        )
        if _name(name) in found:
            raise UsageError(f"unit '{name.strip()}' is named twice; name it once")
        found[_name(name)] = _unit(name, {key: _number(text, value) for key, value in fields.items()})
    return found


def unit_texts(units: Mapping[str, Unit]) -> tuple[str, ...]:
    """The texts that :func:`parse_units` turns back into ``units``.

    >>> unit_texts({"head width": Unit(0.5, min=8)})
    ('head-width=0.5:min=8',)
    """
    texts: list[str] = []
    for name, unit in units.items():
        text = name.replace(" ", "-") + ("" if unit.ratio is None else f"={unit.ratio}")
        text += "" if unit.min == 1 else f":min={unit.min}"
        texts.append(text + ("" if unit.max_ratio == 1 else f":max-ratio={unit.max_ratio}"))
    return tuple(texts)


def _name(text: str) -> str:
    name = " ".join(text.replace("_", " ").replace("-", " ").split())
    if not name:
        raise UsageError("a unit without a name; write NAME, NAME=RATIO or NAME=RATIO:min=N:max-ratio=R")
    return name


def _unit(name: str, asked: float | Mapping[str, float] | Unit | None) -> Unit:
    if isinstance(asked, Unit):
        return asked
    if not isinstance(asked, Mapping):
        if asked is not None and not isinstance(asked, int | float):
            raise UsageError(f"unit '{name.strip()}': {asked!r} is not a ratio from 0 to 1")
        return Unit(asked)
    unknown = [key for key in asked if key not in _FIELDS]
    if unknown:
        raise UsageError(f"unit '{name.strip()}' has no '{unknown[0]}'; there are: ratio, min, max_ratio")
    least = asked.get("min", 1)
    if least != int(least):
        raise UsageError(f"minimum {least:g} of unit '{name.strip()}' is not a whole number")
    return Unit(asked.get("ratio"), int(least), asked.get("max_ratio", 1.0))


def _number(text: str, value: str) -> float:
    try:
        return float(value.strip().removesuffix("%")) / (100 if value.strip().endswith("%") else 1)
    except ValueError:
        raise UsageError(f"unit '{text.strip()}' is not NAME, NAME=RATIO or NAME=RATIO:min=N:max-ratio=R") from None
