"""The equations of rules, taken apart: patterns of operands and results, each a list of dimensions.

The signs are in the docstring of :mod:`graphprune.rules.table`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

__all__ = ["Dim", "Pattern", "parse"]


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of a pattern: a variadic run, or terms one after the other, each the product of its names.

    ``pinned`` are those of its names that are pinned, ``names`` all of them, ``name`` the only one (None: there are
    more, or it is a number).
    """

    terms: tuple[tuple[str, ...], ...]
    variadic: bool = False
    broadcast: bool = False
    pinned: frozenset[str] = frozenset()
    names: tuple[str, ...] = field(init=False)
    name: str | None = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(name for term in self.terms for name in term)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "name", names[0] if len(names) == 1 and not names[0].isdigit() else None)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The dimensions of one operand or result; ``plain`` of them are single ones, some may ``broadcast``."""

    dims: tuple[Dim, ...]
    optional: bool = False
    ignored: bool = False
    plain: int = field(init=False)
    broadcast: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", sum(not dim.variadic for dim in self.dims))
        object.__setattr__(self, "broadcast", any(dim.broadcast for dim in self.dims))


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
def parse(text: str) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
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
