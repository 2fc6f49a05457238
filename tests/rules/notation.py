"""What a rule said about a sample, as one line: ``a2 (b3 c4)~ 5! -> ...``.

A letter and its size is a free leaf, ``5!`` a pinned one, ``(a b)`` a product, ``[a b]`` a concatenation; ``+`` marks a
leaf that is summed, ``~`` one that a statistic is taken over. ``a2 of b5`` holds positions along ``b``.
"""

from __future__ import annotations

from graphprune.axes import Axis, Concat, Leaf, Product
from graphprune.rules.call import Meaning
from graphprune.rules.positions import POSITIONS
from rules.sample import Reading


def line(reading: Reading) -> str:
    """The axes of operands and results."""
    names: dict[Leaf, str] = {leaf: _letter(number) for number, leaf in enumerate(reading.free)}
    marks: dict[Leaf, str] = {}
    for mix in reading.call.mixes:
        for leaf in reading.space.leaves(mix.axis):
            marks[leaf] = "~" if mix.kind == "statistics" or marks.get(leaf) == "~" else "+"

    def spell(axis: Axis) -> str:
        axis = reading.space.find(axis)
        if isinstance(axis, Leaf):
            return f"{axis.size}!" if axis.pinned else f"{names.get(axis, '')}{axis.size}{marks.get(axis, '')}"
        parts = " ".join(spell(part) for part in reading.space.parts(axis))
        if isinstance(axis, Concat):
            return f"[{parts}]"
        assert isinstance(axis, Product)
        return f"({parts})" if axis.parts else "1"

    def spell_all(axes: tuple[Axis, ...] | None) -> str:
        return "?" if axes is None else " ".join(spell(axis) for axis in axes) or "scalar"

    def spell_meaning(meaning: Meaning | None) -> str:
        if meaning is None:
            return ""
        return f" {'' if meaning.kind == POSITIONS else f'{meaning.kind} '}of {spell(meaning.axis)}"

    left = ", ".join(
        "-" if operand is None else spell_all(operand.axes) + spell_meaning(operand.meaning)
        for operand in reading.call.operands
    )
    right = ", ".join(
        spell_all(axes) + spell_meaning(reading.call.meanings.get(number))
        for number, axes in enumerate(reading.results)
    )
    declined = f"   declined: {reading.declined}" if reading.declined else ""
    return f"{left} -> {right}{declined}"


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{chr(ord('a') + number // 26 - 1)}{chr(ord('a') + number % 26)}"
