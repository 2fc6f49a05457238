"""Operators that slide a window over space: one that neither strides nor shrinks leaves space as it is."""

from __future__ import annotations

from collections.abc import Callable

from graphprune.rules.call import Call, Declined

__all__ = ["sliding"]


def sliding(text: str) -> Callable[[Call], str]:
    """The equation ``text``, with its space ``*s`` become ``*t`` where the window keeps every extent.

    That is what tells a symbolic height behind a convolution to be the height before it.
    """

    def spell(call: Call) -> str:
        if not _keeps_extents(call):
            return text
        call.pin(call.axes(0)[2:], "a size of this operator's own")
        return text.replace("*s", "*t")

    return spell


def _keeps_extents(call: Call) -> bool:
    kernel = call.attribute("kernel_shape") or _weight(call)
    if kernel is None or any(stride != 1 for stride in call.attribute("strides", ())):
        return False
    padding = call.attribute("auto_pad", "NOTSET")
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        return True
    pads = call.attribute("pads", [0] * (2 * len(kernel))) if padding == "NOTSET" else [0] * (2 * len(kernel))
    dilations = call.attribute("dilations", [1] * len(kernel))
    around = zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)
    return all(
        before + after == dilation * (size - 1)
        for (before, after), dilation, size in zip(around, dilations, kernel, strict=True)
    )


def _weight(call: Call) -> list[int] | None:
    """Extents of the window where the weight tells them."""
    try:
        extents = call.sizes(1)[2:]
    except Declined:
        return None
    known = [extent for extent in extents if isinstance(extent, int)]
    return known if len(known) == len(extents) else None
