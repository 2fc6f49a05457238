"""Operators that slide a window over space: one that neither strides nor shrinks leaves space as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.rules.call import Call, Declined

__all__ = ["keeps_extents", "numbers", "sliding"]


def sliding(text: str) -> Callable[[Call], str]:
    """The equation ``text``, with its space ``*s`` become ``*t`` where the window keeps every extent.

    That is what tells a symbolic height behind a convolution to be the height before it.
    """

    def spell(call: Call) -> str:
        kernel = call.attribute("kernel_shape") or _weight(call)
        if kernel is None or not keeps_extents(call, kernel):
            return text
        call.pin(call.axes(0)[-len(kernel) :], "a size of this operator's own")
        return text.replace("*s", "*t")

    return spell


def keeps_extents(call: Call, kernel: Sequence[int]) -> bool:
    """Whether a window of these extents leaves all extents of space as they are.

    Strides that are stated as an empty list are those of pooling in ATen: the extents of the window.
    """
    strides = call.attribute("strides", [1])
    if any(stride != 1 for stride in (numbers(strides, len(kernel)) or kernel)):
        return False
    padding = str(call.attribute("auto_pad", "NOTSET")).upper()
    if padding in ("SAME_UPPER", "SAME_LOWER", "SAME"):
        return True
    if padding == "VALID":
        pads = [0] * (2 * len(kernel))
    else:
        pads = numbers(call.attribute("pads", 0), len(kernel))
        pads = pads if len(pads) == 2 * len(kernel) else pads * 2
    dilations = numbers(call.attribute("dilations", 1), len(kernel))
    around = zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)
    return all(
        before + after == dilation * (size - 1)
        for (before, after), dilation, size in zip(around, dilations, kernel, strict=True)
    )


def numbers(value: int | Sequence[int], count: int) -> list[int]:
    """A number for each of ``count`` dimensions where one may stand for all."""
    listed = [value] if isinstance(value, int) else list(value)
    return listed * count if len(listed) == 1 else listed


def _weight(call: Call) -> list[int] | None:
    """Extents of the window where the weight tells them."""
    try:
        extents = call.sizes(1)[2:]
    except Declined:
        return None
    known = [extent for extent in extents if isinstance(extent, int)]
    return known if len(known) == len(extents) else None
