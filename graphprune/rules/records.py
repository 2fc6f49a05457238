"""What a rule records beside the axes: pins, sums and statistics, costs, sites and roles.

All of it follows from where the names of the equation stand. So it depends on the *form* of a call only: the equation,
the ranks of the operands, which of their dimensions are repeated or of size 1 in a run, and which operands are
constant. Sizes and the axes themselves have no part in it. Networks repeat their layers, so it is worked out once for
each form and then applied to the axes of each call.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graphprune.axes import ONE, Axis
from graphprune.rules.call import AttributeTarget, Call, Mix
from graphprune.rules.notation import Pattern, parse

if TYPE_CHECKING:
    from graphprune.rules.table import Rule

__all__ = ["Form", "Records"]

Place = tuple[int, int]
"""The number of an operand or result, and a dimension of it."""


class Form(NamedTuple):
    """What the records of a call depend on.

    ``ranks`` are those of the operands of the equation (None: absent, or not related); ``ones`` the places in runs
    whose axis is ONE, ``narrow`` those whose one position is repeated along a whole axis; ``runs`` the variadic names
    and how many dimensions each has; ``constant`` tells it of every operand; ``results`` counts them.
    """

    text: str
    ranks: tuple[int | None, ...]
    ones: tuple[Place, ...]
    narrow: tuple[Place, ...]
    runs: tuple[tuple[str, int], ...]
    constant: tuple[bool, ...]
    results: int


class Key(NamedTuple):
    """A name of the equation; of a variadic one, the dimension ``back`` from the last."""

    name: str
    back: int | None = None

    def axis(self, names: Mapping[str, Axis], runs: Mapping[str, Sequence[Axis]]) -> Axis:
        """The axis that it stands for in a call."""
        return names[self.name] if self.back is None else runs[self.name][self.back]


class Records:
    """The records of all calls of one form, to be applied to the axes of each."""

    def __init__(self, rule: Rule, form: Form, names: Sequence[str]) -> None:
        """``names`` are the plain names that are bound to an axis, in the order in which they were."""
        self.rule, self.form = rule, form
        self.patterns, self.results = parse(form.text)
        self.runs = dict(form.runs)
        self.where: dict[Key, list[Place]] = {}
        self.uses: dict[Key, int] = {}
        self.pinned: set[Key] = set()
        for number, (pattern, rank) in enumerate(zip(self.patterns, form.ranks, strict=True)):
            if rank is not None and (rank or not pattern.broadcast):
                self._operand(number, pattern, rank)
        for pattern in self.results:
            self._result(pattern)
        keys = [Key(name) for name in names] + [key for name in self.runs for key in self._keys(name)]
        self.pins: list[tuple[Key, str]] = []
        self.mixes: list[tuple[Key, str, tuple[Place, ...], tuple[Place, ...], int | None]] = []
        self._relations(keys)
        bound = set(keys)
        self.macs = [self._mac(term, bound) for term in rule.macs]
        self.sites = [_site(spelled, text) for spelled, text in rule.sites.items()]
        self.roles = [(key, role) for name, role in rule.roles.items() for key in self._keys(name) if key in bound]

    def apply(self, call: Call, names: Mapping[str, Axis], runs: Mapping[str, Sequence[Axis]]) -> None:
        """Record all of it about ``call``, whose axes are ``names`` and, of variadic names, ``runs``."""
        for key, reason in self.pins:
            call.pin(key.axis(names, runs), reason)
        for key, kind, operands, results, neutral in self.mixes:
            call.mixes.append(Mix(kind, key.axis(names, runs), operands, results, neutral))
        for numbers, keys in self.macs:
            factors = [call.fixed(number, "a fixed factor") for number in numbers]
            call.contractions.append((*factors, *[key.axis(names, runs) for key in keys]))
        for target, spelled in self.sites:
            if target.name in call.attributes:
                axis = call.space.product([names.get(name, ONE) for name in spelled])
                if axis is not ONE:
                    call.site(target, axis)
        for key, role in self.roles:
            call.roles.append((key.axis(names, runs), role))

    # -- where names stand ----------------------------------------------------------------------------------------

    def _operand(self, number: int, pattern: Pattern, rank: int) -> None:
        position = 0
        for dim in pattern.dims:
            if not dim.variadic:
                self.pinned.update(map(Key, dim.pinned))
                self._use(map(Key, dim.names))
                if (number, position) not in self.form.narrow:
                    for name in dict.fromkeys(dim.names):
                        self.where.setdefault(Key(name), []).append((number, position))
                position += 1
                continue
            run = rank - pattern.plain
            for back, key in enumerate(Key(dim.names[0], back) for back in range(run)):
                self._use([key])
                place = (number, position + run - 1 - back)
                if place not in self.form.ones:
                    self.where.setdefault(key, []).append(place)
                if dim.pinned:
                    self.pinned.add(key)
            position += run

    def _result(self, pattern: Pattern) -> None:
        for dim in pattern.dims:
            if dim.variadic:
                self._use(self._keys(dim.names[0]))
            else:
                self.pinned.update(map(Key, dim.pinned))
                self._use(map(Key, dim.names))

    def _use(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.uses[key] = self.uses.get(key, 0) + 1

    def _keys(self, name: str) -> list[Key]:
        name = name.strip("*")
        return [Key(name, back) for back in range(self.runs[name])] if name in self.runs else [Key(name)]

    # -- what follows ---------------------------------------------------------------------------------------------

    def _relations(self, keys: Sequence[Key]) -> None:
        """Pins, sums and statistics."""
        rule = self.rule
        statistics = {key for name in rule.statistics.split() for key in self._keys(name)}
        outside = {key for pattern in self.results for dim in pattern.dims for n in dim.names for key in self._keys(n)}
        for key in keys:
            summed = rule.summed.get(key.name if key.back is None else f"*{key.name}{key.back}")
            if key in self.pinned:
                self.pins.append((key, "this operator needs all its positions"))
            elif self.uses.get(key, 0) == 1 and key in self.where and summed is None:
                self.pins.append((key, "an axis that occurs in this operand alone"))
            elif key in statistics and key in self.where:
                self.mixes.append((key, "statistics", tuple(self.where[key]), self._places(key), None))
            elif summed is not None:
                for operand in summed:
                    self._sum(key, [place for place in self.where.get(key, ()) if place[0] == operand])
            elif key not in outside and key in self.where:
                self._sum(key, [self._to_mask(self.where[key])])

    def _sum(self, key: Key, places: Sequence[Place]) -> None:
        if places:
            self.mixes.append((key, "sum", tuple(places), (), self.rule.neutral.get(places[0][0])))

    def _to_mask(self, places: Sequence[Place]) -> Place:
        """Of the operands that hold a summed axis one is masked: an activation, if there is one."""
        return min(places, key=lambda place: self.form.constant[place[0]])

    def _places(self, key: Key) -> tuple[Place, ...]:
        places: list[Place] = []
        for number, pattern in enumerate(self.results[: self.form.results]):
            position = 0
            for dim in pattern.dims:
                if dim.variadic:
                    keys = self._keys(dim.names[0]) if dim.names[0] in self.runs else []
                    if key in keys:
                        places.append((number, position + len(keys) - 1 - keys.index(key)))
                    position += len(keys)
                else:
                    if key.back is None and key.name in dim.names:
                        places.append((number, position))
                    position += 1
        return tuple(places)

    def _mac(self, term: str, bound: Container[Key]) -> tuple[list[int], list[Key]]:
        """The numbers and the axes that multiply to a number of multiply-accumulates."""
        numbers = [int(name) for name in term.split() if name.isdigit()]
        keys = [key for name in term.split() if not name.isdigit() for key in self._keys(name)]
        return numbers, [key for key in keys if key in bound]


def _site(spelled: str, names: str) -> tuple[AttributeTarget, list[str]]:
    """Where an attribute, or one number of it, spells an extent, and the names whose product that is."""
    attribute, _, index = spelled.rstrip("]").partition("[")
    return AttributeTarget(attribute, int(index) if index else None), names.split()
