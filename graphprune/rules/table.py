"""The language in which operators are declared, and the table of all of them.

A rule in the style of an einsum equation names the axes of operands and results::

    Rule("n (g i) *s, (g o) i *k, (g o)? -> n (g o) *t")

Operands are separated by commas; each lists its dimensions. A *name* is an axis, and equal names are one axis.

=========== ===================================================================================================
``name``    an axis; occurs in operands only: summed; occurs once in the whole rule: fixed (pinned)
``(g i)``   a dimension that is a product of axes, row-major; a number in it is a fixed factor
``[a b]``   a dimension that is the concatenation of axes or of products
``*s``      any number of dimensions, aligned at the last one, broadcasting where a size is 1
``name!``   pinned wherever it stands, in a product too
``name~``   may be 1 in this operand (broadcast)
``-``       an operand whose axes have no part in the rule: pinned
``…?``      after an operand: it may be absent; with ``~`` it may also be a scalar
=========== ===================================================================================================

``bind`` puts a rule, or a function of a :class:`~graphprune.rules.call.Call` where an equation cannot say it, into the
table under the name of an operator. An operator that is not in the table is pinned and reported.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType

from graphprune.axes import ONE, Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined, Mix
from graphprune.sizes import Size, divide, product_size

__all__ = ["Binding", "Rule", "RuleFunction", "bind", "lookup", "table"]

RuleFunction = Callable[[Call], Sequence[Axes | None]]


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of a pattern: a variadic run, or terms one after the other, each the product of its names.

    ``pinned`` are those of its names that are pinned, ``names`` all of them.
    """

    terms: tuple[tuple[str, ...], ...]
    variadic: bool = False
    broadcast: bool = False
    pinned: frozenset[str] = frozenset()
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(name for term in self.terms for name in term))


@dataclass(frozen=True, slots=True)
class Pattern:
    """The dimensions of one operand or result."""

    dims: tuple[Dim, ...]
    optional: bool = False
    ignored: bool = False


_TOKENS = re.compile(r"[()\[\]]|[*\w]+[~!]*|[~!]")


def _dims(text: str) -> tuple[Dim, ...]:
    """The dimensions that ``text`` spells; a mark after a closing bracket belongs to the whole dimension."""
    dims: list[Dim] = []
    tokens = deque(_TOKENS.findall(text))
    while tokens:
        token = tokens.popleft()
        if token == "~":
            dims[-1] = replace(dims[-1], broadcast=True)
        elif token == "!":
            dims[-1] = replace(dims[-1], pinned=frozenset(dims[-1].names))
        elif token == "[":
            terms: list[tuple[str, ...]] = []
            while (token := tokens.popleft()) != "]":
                terms.append(_until(")", tokens) if token == "(" else (token,))
            dims.append(_dim(terms))
        elif token == "(":
            dims.append(_dim([_until(")", tokens)]))
        else:
            dims.append(_dim([(token.strip("*~"),)], token.startswith("*"), "~" in token))
    return tuple(dims)


def _until(closing: str, tokens: deque[str]) -> tuple[str, ...]:
    return tuple(iter(tokens.popleft, closing))


def _dim(terms: Sequence[tuple[str, ...]], variadic: bool = False, broadcast: bool = False) -> Dim:
    pinned = frozenset(name.strip("!") for term in terms for name in term if name.endswith("!"))
    return Dim(tuple(tuple(name.strip("!") for name in term) for term in terms), variadic, broadcast, pinned)


@cache
def _parse(text: str) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"rule without '->': {text!r}")

    def pattern(part: str) -> Pattern:
        part = part.strip()
        optional = part.endswith("?")
        part = part.rstrip("?").strip()
        return Pattern(() if part == "-" else _dims(part), optional, part == "-")

    operands = tuple(pattern(part) for part in left.split(",")) if left.strip() else ()
    return operands, tuple(pattern(part) for part in right.split(",")) if right.strip() else ()


@dataclass(frozen=True)
class Rule:
    """An equation over the axes of operands and results (see the module's table of its signs).

    ``text`` may be a function of the call where attributes choose the equation (a transposed Gemm).
    ``sizes`` gives the size of a name, or the attribute that tells it. ``sites`` names the attributes that spell an
    axis' extent (``{"heads": "g r", "widths[0]": "d"}``: the product of two axes, one number of a list).
    ``macs`` are terms, each a list of names whose extents multiply (``"n g i o *k *t"``).
    ``statistics`` are names whose positions are mixed by something other than a sum: legal to cut, but the result is
    not that of zeroing. ``roles`` says what the positions of a name are (head, head width, expert, ...).
    ``summed`` names the operands in which removed positions must be zero, for sums that the equation does not show or
    that need more than one of them; ``neutral`` the operand that holds the zero point of an operand.
    """

    text: str | Callable[[Call], str]
    sizes: Mapping[str, int | str | Callable[[Call], int]] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    macs: tuple[str, ...] = ()
    statistics: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    summed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    neutral: Mapping[int, int] = field(default_factory=dict)

    def __call__(self, call: Call) -> list[Axes | None]:
        text = self.text if isinstance(self.text, str) else self.text(call)
        return _Match(self, text, call).run()


class _Match:
    """One application of a rule to a call."""

    def __init__(self, rule: Rule, text: str, call: Call) -> None:
        self.rule, self.call = rule, call
        self.patterns, self.results = _parse(text)
        self.names: dict[str, Axis] = {}
        self.runs: dict[str, list[Axis]] = {}  # variadic names: axes from the last dimension backwards
        self.where: dict[str, list[tuple[int, int]]] = {}  # name -> (operand, dim)
        self.uses: dict[str, int] = {}
        self.pinned: set[str] = set()
        self.broadcast: set[int] = set()

    def run(self) -> list[Axes | None]:
        call = self.call
        for number, operand in enumerate(call.operands):
            if operand is None:
                continue
            pattern = self.patterns[number] if number < len(self.patterns) else None
            if pattern is None or pattern.ignored:
                call.pin(operand.axes or (), "an operand whose axes the rule does not relate")
            elif operand.axes is None:
                raise Declined(f"operand {number} has an unknown shape")
        for number, pattern in enumerate(self.patterns):
            operand = call.operand(number)
            if operand is None:
                if not pattern.optional and not pattern.ignored:
                    raise Declined(f"operand {number} is missing")
            elif not pattern.ignored:
                self._operand(number, pattern, call.axes(number))
        results = [self._result(number, pattern) for number, pattern in enumerate(self.results)]
        self._record()
        count = max(len(call.result_sizes), 1)
        if len(results) >= count:
            return results[:count]
        return [*results, *call.unknown_results("a result that the rule does not name")[len(results) :]]

    # -- operands -------------------------------------------------------------------------------------------------

    def _operand(self, number: int, pattern: Pattern, axes: Axes) -> None:
        fixed = [dim for dim in pattern.dims if not dim.variadic]
        variadic = len(pattern.dims) > len(fixed)
        if not axes and any(dim.broadcast for dim in pattern.dims):
            return  # a scalar
        if len(axes) < len(fixed) or (not variadic and len(axes) != len(fixed)):
            raise Declined(f"operand {number} has {len(axes)} dimensions where {len(fixed)} are expected")
        position = 0
        run = len(axes) - len(fixed)
        for dim in pattern.dims:
            if dim.variadic:
                self._bind_run(number, dim, axes[position : position + run], position)
                position += run
            else:
                self._bind(number, dim, axes[position], position)
                position += 1

    def _bind_run(self, number: int, dim: Dim, axes: Sequence[Axis], position: int) -> None:
        name = dim.names[0]
        known = self.runs.setdefault(name, [])
        for back, axis in enumerate(reversed(axes)):
            key = f"*{name}{back}"
            self.uses[key] = self.uses.get(key, 0) + 1
            if axis is not ONE:
                self.where.setdefault(key, []).append((number, position + len(axes) - 1 - back))
            if dim.pinned:
                self.pinned.add(key)
            if back == len(known):
                known.append(axis)
            else:
                known[back] = self.call.broadcast(known[back], axis)

    def _bind(self, number: int, dim: Dim, axis: Axis, position: int) -> None:
        self.pinned |= dim.pinned
        for name in dim.names:
            self.uses[name] = self.uses.get(name, 0) + 1
        if dim.broadcast and axis.size == 1 and any(self._size(name) != 1 for name in dim.names):
            self.call.pin(axis, "one position is repeated along a whole axis")
            return
        for name in dict.fromkeys(dim.names):
            self.where.setdefault(name, []).append((number, position))
        if len(dim.names) == 1 and dim.names[0] not in self.names and not dim.names[0].isdigit():
            self.names[dim.names[0]] = axis
            return
        self.call.unify(axis, self._axis(dim, axis.size))

    def _size(self, name: str) -> Size | None:
        if name.isdigit():
            return int(name)
        if name in self.names:
            return self.names[name].size
        source = self.rule.sizes.get(name)
        if source is None:
            return None
        if isinstance(source, int):
            return source
        return int(source(self.call) if callable(source) else self.call.attribute(source, 1))

    def _axis(self, dim: Dim, whole: Size | None) -> Axis:
        """The axis of a dimension of size ``whole``; of its terms, one may have a size that only ``whole`` tells."""
        if len(dim.terms) == 1:
            return self._product(dim.terms[0], whole)
        sizes: list[Size | None] = []
        for term in dim.terms:
            known = [size for size in self._sizes(term) if size is not None]
            sizes.append(product_size(known) if len(known) == len(term) else None)
        if isinstance(whole, int) and sizes.count(None) == 1:
            sizes[sizes.index(None)] = whole - sum(size for size in sizes if isinstance(size, int))
        elif isinstance(whole, int) and len(set(dim.terms)) == 1:
            sizes = [divide(whole, len(sizes))] * len(sizes)
        parts = [self._product(term, size) for term, size in zip(dim.terms, sizes, strict=True)]
        return self.call.space.concat(parts, self.call.why("joins runs of symbolic size"))

    def _sizes(self, names: Sequence[str]) -> list[Size | None]:
        return [self._size(name) for name in names]

    def _product(self, names: Sequence[str], whole: Size | None) -> Axis:
        """The product of ``names``; of those not yet bound, at most one may have a size that only ``whole`` tells."""
        sizes = self._sizes(names)
        unknown = [index for index, size in enumerate(sizes) if size is None]
        if unknown:
            rest = None if whole is None else divide(whole, product_size(size for size in sizes if size is not None))
            if len(unknown) > 1 or rest is None:
                raise Declined(f"sizes do not fit {' '.join(names)}")
            sizes[unknown[0]] = rest
        parts: list[Axis] = []
        for name, size in zip(names, sizes, strict=True):
            if name.isdigit():
                parts.append(self.call.fixed(size, "a fixed factor"))
                continue
            if name not in self.names:
                assert size is not None
                self.names[name] = self.call.space.leaf(size)
            parts.append(self.names[name])
        return self.call.space.product(parts)

    # -- results --------------------------------------------------------------------------------------------------

    def _result(self, number: int, pattern: Pattern) -> Axes | None:
        sizes = self.call.result(number)
        if pattern.ignored:
            return None if sizes is None else tuple(self.call.fixed(size, "not related") for size in sizes)
        plain = sum(not dim.variadic for dim in pattern.dims)
        axes: list[Axis] = []
        for dim in pattern.dims:
            size = sizes[len(axes)] if sizes is not None and len(axes) < len(sizes) else None
            if dim.variadic:
                axes.extend(self._result_run(dim.names[0], len(axes), plain, sizes))
                continue
            self.pinned |= dim.pinned
            for name in dim.names:
                self.uses[name] = self.uses.get(name, 0) + 1
            if len(dim.names) == 1 and self._size(dim.names[0]) is None:
                self.names[dim.names[0]] = self.call.fixed(size, "a size of this operator's own")
            axes.append(self._axis(dim, size))
        return tuple(axes)

    def _result_run(self, name: str, at: int, plain: int, sizes: tuple[Size, ...] | None) -> list[Axis]:
        if name not in self.runs:
            if sizes is None and not self.runs:
                raise Declined("a result whose rank is not known")
            count = len(sizes) - plain if sizes is not None else max(map(len, self.runs.values()), default=0)
            own = [sizes[at + index] if sizes is not None else None for index in range(count)]
            self.runs[name] = [self.call.fixed(size, "a size of this operator's own") for size in reversed(own)]
        for back in range(len(self.runs[name])):
            key = f"*{name}{back}"
            self.uses[key] = self.uses.get(key, 0) + 1
        return list(reversed(self.runs[name]))

    # -- what follows ---------------------------------------------------------------------------------------------

    def _record(self) -> None:
        call, rule = self.call, self.rule
        everything = dict(self.names)
        for name, run in self.runs.items():
            everything.update({f"*{name}{back}": axis for back, axis in enumerate(run)})
        statistics = {key for name in rule.statistics.split() for key in self._keys(name)}
        outside = {key for pattern in self.results for dim in pattern.dims for n in dim.names for key in self._keys(n)}
        for key, axis in everything.items():
            if key in self.pinned:
                call.pin(axis, "this operator needs all its positions")
            elif self.uses.get(key, 0) == 1 and key in self.where and key not in rule.summed:
                call.pin(axis, "an axis that occurs in this operand alone")
            elif key in statistics and key in self.where:
                call.mixes.append(Mix("statistics", axis, tuple(self.where[key]), self._places(key)))
            elif key in rule.summed:
                for operand in rule.summed[key]:
                    self._sum(axis, [place for place in self.where.get(key, ()) if place[0] == operand])
            elif key not in outside and key in self.where:
                self._sum(axis, [self._to_mask(self.where[key])])
        for term in rule.macs:
            factors = [call.fixed(int(name), "a fixed factor") for name in term.split() if name.isdigit()]
            keys = [key for name in term.split() if not name.isdigit() for key in self._keys(name)]
            call.contractions.append((*factors, *(everything[key] for key in keys if key in everything)))
        for spelled, names in rule.sites.items():
            attribute, _, index = spelled.rstrip("]").partition("[")
            axis = call.space.product(self.names.get(name, ONE) for name in names.split())
            if attribute in call.attributes and axis is not ONE:
                call.site(AttributeTarget(attribute, int(index) if index else None), axis)
        for name, role in rule.roles.items():
            call.roles.extend((everything[key], role) for key in self._keys(name) if key in everything)

    def _sum(self, axis: Axis, places: Sequence[tuple[int, int]]) -> None:
        if places:
            self.call.mixes.append(Mix("sum", axis, tuple(places), neutral=self.rule.neutral.get(places[0][0])))

    def _keys(self, name: str) -> list[str]:
        name = name.strip("*")
        return [f"*{name}{back}" for back in range(len(self.runs[name]))] if name in self.runs else [name]

    def _to_mask(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """Of the operands that hold a summed axis one is masked: an activation, if there is one."""

        def constant(place: tuple[int, int]) -> bool:
            operand = self.call.operand(place[0])
            return operand is not None and operand.constant

        return min(places, key=constant)

    def _places(self, key: str) -> tuple[tuple[int, int], ...]:
        places: list[tuple[int, int]] = []
        for number, pattern in enumerate(self.results[: max(len(self.call.result_sizes), 1)]):
            position = 0
            for dim in pattern.dims:
                if dim.variadic:
                    run = self.runs.get(dim.names[0], [])
                    if key.startswith("*") and key in self._keys(dim.names[0]):
                        places.append((number, position + len(run) - 1 - self._keys(dim.names[0]).index(key)))
                    position += len(run)
                else:
                    if key in dim.names:
                        places.append((number, position))
                    position += 1
        return tuple(places)


@dataclass(frozen=True, slots=True)
class Binding:
    """An operator of a host, its rule, and how the rule's words are spelled in the operator's own schema.

    ``operands`` are the schema's names of the operands that the rule relates, in order (``-`` where the operator lacks
    one). ``attributes`` gives an attribute that the rule reads the schema's name for it, or a constant.
    """

    operator: str
    rule: Rule | RuleFunction
    operands: tuple[str, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)


_TABLE: dict[str, Binding] = {}


def bind(operators: str, rule: Rule | RuleFunction, operands: str = "", **attributes: object) -> None:
    """Declare that ``operators`` (names such as ``onnx.Conv``, separated by spaces) follow ``rule``.

    ``operands`` are the schema's names of the operands that the rule relates, in order; all of them by default.
    ``attributes`` translate: ``group="groups"`` says that what the rule calls ``group`` is the operator's argument
    ``groups``; anything but a text is a value that this operator does not spell (``allowzero=1``).

    Raises:
        ValueError: an operator is declared twice.
    """
    for operator in operators.split():
        if operator in _TABLE:
            raise ValueError(f"operator {operator} is declared twice")
        _TABLE[operator] = Binding(operator, rule, tuple(operands.split()), MappingProxyType(attributes))


def lookup(operator: str) -> Binding | None:
    """The binding of an operator, None where nobody declared it."""
    return _TABLE.get(operator)


def table() -> Mapping[str, Binding]:
    """All bindings, read-only."""
    return MappingProxyType(_TABLE)
