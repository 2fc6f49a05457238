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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from graphprune.rules.call import Axes, Call
from graphprune.rules.match import Match
from graphprune.rules.records import Records

__all__ = ["Binding", "Rule", "RuleFunction", "bind", "lookup", "table"]

RuleFunction = Callable[[Call], Sequence[Axes | None]]


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
    known: dict[object, Records] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What there is to record of calls of each form met so far (see :mod:`graphprune.rules.records`)."""

    def __call__(self, call: Call) -> list[Axes | None]:
        text = self.text if isinstance(self.text, str) else self.text(call)
        return Match(self, text, call).run()


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
