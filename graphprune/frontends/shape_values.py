"""What ONNX computes about shapes: contents of small integer tensors, element by element.

After canonicalisation only truly symbolic shape arithmetic is left; a value that this module does not follow is simply
unknown, and whatever depends on it is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.axes import ONE
from graphprune.elements import UNKNOWN, Element, computed, extent, literal
from graphprune.rules.call import Call
from graphprune.sizes import Size

__all__ = ["MAX_ELEMENTS", "results"]

MAX_ELEMENTS = 1024
"""Integer tensors above this are data (token tables, index maps), not shapes."""

Elements = tuple[Element, ...]
Contents = Sequence["Elements | None"]


def _shape(call: Call, _: Contents) -> Elements | None:
    operand = call.operand(0)
    if operand is None or operand.axes is None:
        return None
    axes = operand.axes[slice(call.attribute("start", 0), call.attribute("end"))]
    return tuple(literal(1) if axis is ONE else extent(axis) for axis in axes)


def _first(call: Call, contents: Contents) -> Elements | None:
    return contents[0]


def _concat(call: Call, contents: Contents) -> Elements | None:
    joined: list[Element] = []
    for part, operand in zip(contents, call.operands, strict=True):
        axes = operand.axes if operand is not None else None
        if part is not None:
            joined.extend(part)
        elif axes is not None and len(axes) == 1 and isinstance(axes[0].size, int):
            joined.extend([UNKNOWN] * axes[0].size)
        else:
            return None
    return tuple(joined)


def _gather(call: Call, contents: Contents) -> Elements | None:
    data, index = contents[0], contents[1]
    if data is None or index is None or any(not isinstance(element.value, int) for element in index):
        return None
    positions = [int(element.value) for element in index]  # type: ignore[arg-type]
    return tuple(data[p] for p in positions) if all(-len(data) <= p < len(data) for p in positions) else None


def _numbers(content: Elements | None) -> list[int] | None:
    if content is None or any(not isinstance(element.value, int) for element in content):
        return None
    return [int(element.value) for element in content]  # type: ignore[arg-type]


def _slice(call: Call, contents: Contents) -> Elements | None:
    data = contents[0]
    if len(contents) == 1:
        starts, ends, steps = list(call.attribute("starts", ())), list(call.attribute("ends", ())), [1]
    else:
        padded = [*contents, None, None, None]
        starts, ends = _numbers(padded[1]) or [], _numbers(padded[2]) or []
        steps = _numbers(padded[4]) or [1] if call.operand(4) is not None else [1]
    if data is None or len(starts) != 1 or len(ends) != 1 or steps[0] == 0:
        return None
    return data[slice(*slice(starts[0], ends[0], steps[0]).indices(len(data)))]


def _paired(a: Elements | None, b: Elements | None) -> list[tuple[Element, Element]] | None:
    """Elements of two broadcast vectors, side by side."""
    if a is None or b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
        return None
    count = max(len(a), len(b))
    a, b = (side * count if len(side) == 1 else side for side in (a, b))
    return list(zip(a, b, strict=True))


def _arithmetic(call: Call, contents: Contents) -> Elements | None:
    """Element by element, over however many operands Max and Min have."""
    name = call.op.rpartition(".")[2]
    result = contents[0]
    for content in contents[1:]:
        pairs = _paired(result, content)
        if pairs is None:
            return None
        result = tuple(computed(name, x, y) for x, y in pairs)
    return result


def _product(call: Call, contents: Contents) -> Elements | None:
    if contents[0] is None:
        return None
    total = literal(1)
    for element in contents[0]:
        total = computed("Mul", total, element)
    return (total,)


def _size(call: Call, contents: Contents) -> Elements | None:
    return _product(call, [_shape(call, contents)])


def _filled(call: Call, contents: Contents) -> Elements | None:
    """ConstantOfShape with a known length."""
    length = _numbers(contents[0])
    value = call.attribute("value")
    number = 0 if value is None else value.numpy().reshape(-1)[0]
    if length is None or len(length) != 1 or length[0] > MAX_ELEMENTS or int(number) != number:
        return None
    return (literal(int(number)),) * length[0]


def _equal(call: Call, contents: Contents) -> Elements | None:
    """Whether elements are equal, as 1 or 0; a symbolic extent is never a negative number."""
    pairs = _paired(contents[0], contents[1])
    if pairs is None:
        return None
    return tuple(_same(a.value, b.value) for a, b in pairs)


def _same(a: Size | None, b: Size | None) -> Element:
    if a is None or b is None:
        return UNKNOWN
    if isinstance(a, int) and isinstance(b, int):
        return literal(int(a == b))
    numbers = [size for size in (a, b) if isinstance(size, int)]
    return literal(0) if numbers and numbers[0] < 0 else UNKNOWN


def _where(call: Call, contents: Contents) -> Elements | None:
    chosen, pairs = contents[0], _paired(contents[1], contents[2])
    if chosen is None or pairs is None or len(chosen) not in (1, len(pairs)):
        return None
    chosen = chosen * len(pairs) if len(chosen) == 1 else chosen
    return tuple(UNKNOWN if c.value is None else a if c.value else b for c, (a, b) in zip(chosen, pairs, strict=True))


FOLLOWED: dict[str, Callable[[Call, Contents], Elements | None]] = {
    "onnx.Shape": _shape,
    "onnx.Size": _size,
    "onnx.Cast": _first,
    "onnx.Identity": _first,
    "onnx.Squeeze": _first,
    "onnx.Unsqueeze": _first,
    "onnx.Reshape": _first,
    "onnx.Flatten": _first,
    "onnx.Concat": _concat,
    "onnx.Gather": _gather,
    "onnx.Slice": _slice,
    "onnx.ReduceProd": _product,
    "onnx.ConstantOfShape": _filled,
    "onnx.Equal": _equal,
    "onnx.Where": _where,
    **{f"onnx.{name}": _arithmetic for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
}


def results(call: Call) -> Elements | None:
    """Contents of the only result of a call, where they can be followed from those of its operands."""
    follow = FOLLOWED.get(call.op)
    if follow is None:
        return None
    contents = [operand.elements if operand is not None else None for operand in call.operands]
    if not contents:
        return None
    try:
        found = follow(call, contents)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # numbers that no shape is made of: a division by zero, an infinity, an operand too few
    return found if found is not None and len(found) <= MAX_ELEMENTS else None
