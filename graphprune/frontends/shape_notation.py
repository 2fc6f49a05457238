"""The notation of :mod:`graphprune.frontends.contrib_shapes`: output shapes spelled from operands and attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Dim", "Output", "Signature", "parse"]

Dim = int | str | None
"""A dimension: its extent, its symbolic name, or unknown."""

_ATOM = re.compile(r"(?P<name>[a-z]\w*)(?::(?P<rank>\d))?(?P<index>\*|\[[-:\d]+\])|@(?P<attr>\w+)(?:\[(?P<at>\d)\])?")


@dataclass(frozen=True, slots=True)
class Output:
    """One output: where its element type comes from ("" is the first operand), and its dimensions as written."""

    element: str
    dims: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """The operand names of an operator and its outputs."""

    operands: tuple[str, ...]
    outputs: tuple[Output, ...]

    def shape(
        self, output: Output, shapes: Mapping[str, list[Dim]], attribute: Callable[[str], int | list[int] | None]
    ) -> list[Dim] | None:
        """Return the dimensions of ``output``, or None when not even their number is known.

        Args:
            output: one of ``outputs``.
            shapes: the dimensions of each operand of known rank.
            attribute: gives an attribute by name, None when it is absent.
        """
        if output.dims is None:
            return None
        result: list[Dim] = []
        for text in output.dims:
            dims = _first_known(text, shapes, attribute)
            if dims is None:
                return None
            result += dims
        return result


def parse(line: str) -> Signature:
    """Parse one row such as ``"x bias -> x[:2] @N, <float> x*"``.

    >>> parse("x bias -> x*").operands
    ('x', 'bias')
    """
    left, _, right = line.partition("->")
    return Signature(tuple(left.split()), tuple(_output(text.split()) for text in right.split(",")))


def _output(words: list[str]) -> Output:
    element = words.pop(0)[1:-1] if words and words[0].startswith("<") else ""
    return Output(element, None if words == ["_"] else tuple(words))


def _first_known(
    text: str, shapes: Mapping[str, list[Dim]], attribute: Callable[[str], int | list[int] | None]
) -> list[Dim] | None:
    """Evaluate the alternatives of one word; several dims come only from ``name*`` and slices.

    An index into an operand of unknown rank is one unknown dimension; a whole operand or a slice is unknown at all.
    """
    found: list[Dim] | None = [None]
    for alternative in text.split("|"):
        found = _evaluate(alternative, shapes, attribute)
        if found is not None and found != [None]:
            return found
    return found


def _evaluate(
    text: str, shapes: Mapping[str, list[Dim]], attribute: Callable[[str], int | list[int] | None]
) -> list[Dim] | None:
    factors = re.split(r"([*/])(?=[@a-z\d])", text)
    result = _atom(factors[0], shapes, attribute)
    for operator, factor in zip(factors[1::2], factors[2::2], strict=True):
        other = _atom(factor, shapes, attribute)
        left, right = (result or [None])[0], (other or [None])[0]
        if not isinstance(left, int) or not isinstance(right, int) or (operator == "/" and right == 0):
            return [None]
        result = [left * right if operator == "*" else left // right]
    return result


def _atom(
    text: str, shapes: Mapping[str, list[Dim]], attribute: Callable[[str], int | list[int] | None]
) -> list[Dim] | None:
    if text == "?":
        return [None]
    if text.isdigit():
        return [int(text)]
    match = _ATOM.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not in the shape notation")
    if match["attr"]:
        value = attribute(match["attr"])
        if isinstance(value, list):
            at = int(match["at"] or 0)
            return [value[at]] if at < len(value) else [None]
        return [value]
    shape = shapes.get(match["name"])
    index = match["index"]
    if index == "*":
        return None if shape is None else list(shape)
    if ":" in index:
        start, _, stop = index[1:-1].partition(":")
        return None if shape is None else shape[int(start) if start else None : int(stop) if stop else None]
    if shape is None or (match["rank"] and len(shape) != int(match["rank"])):
        return [None]
    at = int(index[1:-1])
    return [shape[at]] if -len(shape) <= at < len(shape) else [None]
