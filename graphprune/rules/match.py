"""The application of an equation to a call: names meet axes, operand by operand.

Only what depends on the axes themselves happens here, for each call. What follows for pins, sums, statistics, costs
and sites depends on the form of the call alone (see :mod:`graphprune.rules.records`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Axes, Call, Declined
from graphprune.rules.notation import Dim, Pattern, parse
from graphprune.rules.records import Form, Records
from graphprune.sizes import Size, divide, product_size

if TYPE_CHECKING:
    from graphprune.rules.table import Rule

__all__ = ["Match"]


class Match:
    """One application of a rule to a call."""

    __slots__ = ("call", "names", "narrow", "ones", "patterns", "ranks", "results", "rule", "runs", "space", "text")

    def __init__(self, rule: Rule, text: str, call: Call) -> None:
        self.rule, self.text, self.call, self.space = rule, text, call, call.space
        self.patterns, self.results = parse(text)
        self.names: dict[str, Axis] = {}
        self.runs: dict[str, list[Axis]] = {}  # variadic names: axes from the last dimension backwards
        self.ranks: list[int | None] = []  # of the operands that take part
        self.ones: list[tuple[int, int]] = []  # dimensions in runs that are ONE, as (operand, dim)
        self.narrow: list[tuple[int, int]] = []  # dimensions that are repeated along a whole axis

    def run(self) -> list[Axes | None]:
        """The axes of the results.

        Raises:
            Declined: the call does not fit the equation.
        """
        call, patterns = self.call, self.patterns
        for number, operand in enumerate(call.operands):
            if operand is None:
                continue
            if number >= len(patterns) or patterns[number].ignored:
                call.pin(operand.axes or (), "an operand whose axes the rule does not relate")
            elif operand.axes is None:
                raise Declined(f"operand {number} has an unknown shape")
        for number, pattern in enumerate(patterns):
            operand = call.operand(number)
            if operand is not None and not pattern.ignored:
                axes = call.axes(number)
                self.ranks.append(len(axes))
                self._operand(number, pattern, axes)
                continue
            if operand is None and not pattern.optional and not pattern.ignored:
                raise Declined(f"operand {number} is missing")
            self.ranks.append(None)
        results = [self._result(number, pattern) for number, pattern in enumerate(self.results)]
        self._records().apply(call, self.names, self.runs)
        count = max(len(call.result_sizes), 1)
        if len(results) >= count:
            return results[:count]
        return [*results, *call.unknown_results("a result that the rule does not name")[len(results) :]]

    def _records(self) -> Records:
        call = self.call
        form = Form(
            self.text,
            tuple(self.ranks),
            tuple(self.ones),
            tuple(self.narrow),
            tuple([(name, len(run)) for name, run in self.runs.items()]),
            tuple([operand is not None and operand.constant for operand in call.operands]),
            max(len(call.result_sizes), 1),
        )
        known = self.rule.known.get(form)
        if known is None:
            known = self.rule.known[form] = Records(self.rule, form, tuple(self.names))
        return known

    # -- operands -------------------------------------------------------------------------------------------------

    def _operand(self, number: int, pattern: Pattern, axes: Axes) -> None:
        if not axes and pattern.broadcast:
            return  # a scalar
        plain = pattern.plain
        run = len(axes) - plain
        if run and (run < 0 or len(pattern.dims) == plain):
            raise Declined(f"operand {number} has {len(axes)} dimensions where {plain} are expected")
        position = 0
        for dim in pattern.dims:
            if dim.variadic:
                self._bind_run(number, dim, axes[position : position + run], position)
                position += run
            else:
                self._bind(number, dim, axes[position], position)
                position += 1

    def _bind_run(self, number: int, dim: Dim, axes: Sequence[Axis], position: int) -> None:
        known = self.runs.setdefault(dim.names[0], [])
        last = position + len(axes) - 1
        for back, axis in enumerate(reversed(axes)):
            if axis is ONE:
                self.ones.append((number, last - back))
            if back == len(known):
                known.append(axis)
            elif known[back] is not axis:
                known[back] = self.call.broadcast(known[back], axis)

    def _bind(self, number: int, dim: Dim, axis: Axis, position: int) -> None:
        if dim.broadcast and axis.size == 1 and any(self._size(name) != 1 for name in dim.names):
            self.narrow.append((number, position))
            self.call.pin(axis, "one position is repeated along a whole axis")
            return
        if dim.name is not None:
            known = self.names.setdefault(dim.name, axis)
            if known is not axis:
                self.call.unify(axis, known)
        elif not self._adopted(dim, axis):
            self.call.unify(axis, self._axis(dim, axis.size))

    def _adopted(self, dim: Dim, axis: Axis) -> bool:
        """Whether ``axis`` could be given to a name that is new, because all that it is multiplied by is ONE."""
        if len(dim.terms) > 1 or axis.size == 1 or axis.size == 0:
            return False
        new = None
        for name in dim.names:
            known = self.names.get(name)
            if known is ONE:
                continue
            size = 0 if known is not None else self._size(name)
            if size == 1:
                continue
            if size is not None or new is not None:
                return False
            new = name
        if new is None:
            return False
        for name in dim.names:
            if not name.isdigit():
                self.names.setdefault(name, axis if name == new else ONE)
        return True

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
        if dim.name is not None and dim.name in self.names:
            return self.space.find(self.names[dim.name])
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
        return self.space.concat(parts, self.call.why("joins runs of symbolic size"))

    def _sizes(self, names: Sequence[str]) -> list[Size | None]:
        return [self._size(name) for name in names]

    def _product(self, names: Sequence[str], whole: Size | None) -> Axis:
        """The product of ``names``; of those not yet bound, at most one may have a size that only ``whole`` tells."""
        known = [self.names.get(name) for name in names]
        if None not in known:
            return self.space.product(known)  # type: ignore[arg-type]  # none of them is None
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
                self.names[name] = self.space.leaf(size)
            parts.append(self.names[name])
        return self.space.product(parts)

    # -- results --------------------------------------------------------------------------------------------------

    def _result(self, number: int, pattern: Pattern) -> Axes | None:
        sizes = self.call.result(number)
        if pattern.ignored:
            return None if sizes is None else tuple(self.call.fixed(size, "not related") for size in sizes)
        axes: list[Axis] = []
        for dim in pattern.dims:
            if dim.variadic:
                axes.extend(self._result_run(dim.names[0], len(axes), pattern.plain, sizes))
                continue
            size = sizes[len(axes)] if sizes is not None and len(axes) < len(sizes) else None
            if dim.name is not None and self._size(dim.name) is None:
                self.names[dim.name] = self.call.fixed(size, "a size of this operator's own")
            axes.append(self._axis(dim, size))
        return tuple(axes)

    def _result_run(self, name: str, at: int, plain: int, sizes: tuple[Size, ...] | None) -> list[Axis]:
        if name not in self.runs:
            if sizes is None and not self.runs:
                raise Declined("a result whose rank is not known")
            count = len(sizes) - plain if sizes is not None else max(map(len, self.runs.values()), default=0)
            own = [sizes[at + index] if sizes is not None else None for index in range(count)]
            self.runs[name] = [self.call.fixed(size, "a size of this operator's own") for size in reversed(own)]
        return self.runs[name][::-1]
