"""Operators that join and cut axes: concat, split, slice, pad, gather at constant positions.

A cut axis is a concatenation of runs; numbers that say where a run begins or ends are sites.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from graphprune.axes import Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined, IndexSite, InputTarget
from graphprune.rules.positions import addressed
from graphprune.rules.table import bind

__all__ = ["concat", "gather", "locked", "padded", "picked", "selected", "split", "taken"]

Target = AttributeTarget | InputTarget

MAX_RUNS = 1024
"""A constant gather of more runs than this is a look-up table (relative positions), not a selection of channels."""


def concat(call: Call) -> list[Axes | None]:
    """Runs one after the other along ``axis``; the other dimensions are shared."""
    operands = [call.axes(index) for index in range(len(call.operands))]
    rank = len(operands[0])
    at = call.attribute("axis", 1) % rank
    if any(len(axes) != rank for axes in operands):
        raise Declined("operands of different rank")
    result = list(operands[0])
    for axes in operands[1:]:
        for dim in range(rank):
            if dim != at:
                call.unify(result[dim], axes[dim])
    result[at] = call.space.concat([axes[at] for axes in operands], call.why("joins runs of symbolic size"))
    return [tuple(result)]


def split(call: Call) -> list[Axes | None]:
    """Consecutive runs along ``axis``: sizes from the attribute, the operand, or equal."""
    x = call.axes(0)
    at = call.attribute("axis", 0) % len(x)
    axis = x[at]
    count = len(call.result_sizes)
    spelled = call.attribute("split")
    in_operand = spelled is None and call.operand(1) is not None
    if in_operand:
        spelled = call.integers(1)
    if not isinstance(axis.size, int):
        call.pin(axis, "splits a symbolic axis")
        own = [sizes[at] if sizes else None for sizes in call.result_sizes]
        return [(*x[:at], call.fixed(size, "part of a symbolic axis"), *x[at + 1 :]) for size in own]
    sizes = list(spelled) if spelled is not None else _equal(axis.size, count)
    parts: list[Axis] = []
    for size in sizes:
        part, axis = call.space.split(axis, int(size))
        parts.append(part)
    for index, part in enumerate(parts):
        if spelled is None:
            if part.size != parts[0].size:
                call.pin(part, "an uneven split without sizes")
            call.unify(parts[0], part, "a split into equal parts")
        else:
            call.site(InputTarget(1, index) if in_operand else AttributeTarget("split", index), part)
    return [(*x[:at], part, *x[at + 1 :]) for part in parts]


def _equal(size: int, count: int) -> list[int]:
    each = -(-size // count)
    return [each] * (count - 1) + [size - each * (count - 1)]


def slice_(call: Call) -> list[Axes | None]:
    """``start:end:step`` along some dimensions; numbers in attributes before opset 10, in operands since."""
    result = list(call.axes(0))
    old = call.operand(1) is None
    if old:
        starts: Sequence[int | None] = call.attribute("starts")
        ends: Sequence[int | None] = call.attribute("ends")
        dims = call.attribute("axes", range(len(starts)))
        steps: Sequence[int | None] = [1] * len(starts)
    else:
        starts, ends = _numbers(call, 1), _numbers(call, 2)
        dims = call.integers(3) if call.operand(3) is not None else range(len(starts))
        steps = _numbers(call, 4) if call.operand(4) is not None else [1] * len(starts)
    known = call.result()
    for index, (dim, start, end, step) in enumerate(zip(dims, starts, ends, steps, strict=True)):
        dim %= len(result)
        axis = result[dim]
        if step == 1 and start == 0 and end is not None and end >= 2**31 - 1:
            continue
        if not isinstance(axis.size, int) or start is None or end is None or step is None or step < 1:
            call.pin(axis, "slices an axis of symbolic size, at computed places, or backwards")
            result[dim] = call.fixed(known[dim] if known else None, "a slice at computed places")
            continue
        bounds: tuple[Target, Target] = (
            (AttributeTarget("starts", index), AttributeTarget("ends", index))
            if old
            else (InputTarget(1, index), InputTarget(2, index))
        )
        result[dim] = taken(call, axis, slice(*slice(start, end, step).indices(axis.size)), *bounds)
    return [tuple(result)]


def taken(call: Call, axis: Axis, span: slice, start: Target | None, end: Target | None) -> Axis:
    """The positions of a slice, with its bounds as sites; a bound that is not spelled is that of the axis.

    A stride counts positions, so of every whole stride the same positions must stay: strides may go, but what lies
    within a stride is fixed.
    """
    size, count, step = int(axis.size), len(range(*span.indices(int(axis.size)))), span.step  # type: ignore[arg-type]
    phase = span.start % step
    base = span.start - phase
    if count == 0 or base + count * step > size:
        call.pin(axis, "an empty slice, or one that ends within a stride")
        return call.fixed(count, "an empty slice, or one that ends within a stride")
    head, body = call.space.take(axis, 0, base), call.space.take(axis, base, base + count * step)
    result = body
    if step > 1:
        result = call.space.leaf(count)
        within = call.fixed(step, "the stride of a slice")
        call.unify(body, call.space.product([result, within]), "the stride of a slice")
    if start is not None:
        call.site(start, head, whole=axis, offset=phase)
    if end is not None:
        call.site(end, head, body, whole=axis)
    return result


def _numbers(call: Call, index: int) -> list[int | None]:
    values = (element.value for element in call.elements(index))
    return [value if isinstance(value, int) else None for value in values]


def pad(call: Call) -> list[Axes | None]:
    """Constant padding of a channel axis adds runs that can themselves be cut; other modes copy, so they pin."""
    x = call.axes(0)
    known = call.result()
    name = "pads" if "pads" in call.attributes else "paddings"
    spelled = call.attribute(name)
    elements = None if spelled is not None else call.elements(1)
    numbers = list(spelled) if spelled is not None else [element.value for element in elements or ()]
    dims = [d % len(x) for d in call.integers(3)] if call.operand(3) is not None else list(range(len(x)))
    constant = call.attribute("mode", "constant") in ("constant", b"constant")
    result = list(x)
    for index, dim in enumerate(dims):
        axis = x[dim]
        before, after = numbers[index], numbers[index + len(dims)]
        if before == 0 and after == 0:
            continue
        if not (constant and isinstance(before, int) and isinstance(after, int) and isinstance(axis.size, int)):
            call.pin(axis, "padded by copies, at computed places, or along a symbolic axis")
            result[dim] = call.fixed(known[dim] if known else None, "a padded axis")
            continue
        places: list[Target] = [
            AttributeTarget(name, place) if spelled is not None else InputTarget(1, place)
            for place in (index, index + len(dims))
        ]
        result[dim] = padded(call, axis, (before, after), places)
    return [tuple(result)]


def padded(call: Call, axis: Axis, around: tuple[int, int], places: Sequence[Target]) -> Axis:
    """An axis of known size with runs of a constant before and after it, which can themselves be cut.

    ``places`` spell the two numbers; negative ones crop.
    """
    before, after = around
    if before < 0 or after < 0:
        call.pin(axis, "cropped by negative padding")
        inner = call.space.split(axis, max(0, -before))[1]
        axis = call.space.split(inner, int(inner.size) - max(0, -after))[0]  # type: ignore[arg-type]
    runs: list[Axis] = []
    for number, place in zip(around, places, strict=True):
        runs.append(call.space.leaf(number) if number > 0 else call.space.concat([]))
        if number > 0:
            call.site(place, runs[-1])
    return call.space.concat([runs[0], axis, runs[1]])


def locked(call: Call, axis: Axis) -> bool:
    """Whether nothing can ever be removed from ``axis``, so that it need not be followed position by position."""
    return all(leaf.pinned for leaf in call.space.leaves(axis))


def picked(call: Call, axis: Axis, positions: Sequence[int]) -> Axis:
    """The axis of ``positions`` (repeats allowed) of an axis of known size, taken run by run."""
    order = np.asarray(positions)
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    bounds = [0, *breaks.tolist(), len(order)]
    runs = [(int(order[a]), int(order[b - 1]) + 1) for a, b in itertools.pairwise(bounds)]
    return call.space.concat([call.space.take(axis, start, stop) for start, stop in runs])


def gather(call: Call) -> list[Axes | None]:
    """At constant positions a selection or permutation of an axis; at computed ones a look-up, which pins the axis."""
    data, indices = call.axes(0), call.axes(1)
    at = call.attribute("axis", 0) % len(data)
    result = selected(call, data[at], 1)
    middle = indices if result is None else (result,) if indices else ()
    return [(*data[:at], *middle, *data[at + 1 :])]


def selected(call: Call, axis: Axis, number: int) -> Axis | None:
    """The axis of the constant positions that operand ``number`` lists, with the site that renumbers them.

    None where they are computed or too scattered; ``axis`` is then pinned, unless they are known to be positions along
    such an axis.
    """
    operand, indices = call.operand(number), call.axes(number)
    positions = operand.read() if operand is not None and len(indices) <= 1 else None
    if positions is None or not isinstance(axis.size, int):
        if not addressed(call, number, axis):
            call.pin(axis, "looked up at computed positions")
        return None
    order = np.asarray(positions).reshape(-1).astype(np.int64)
    order = np.where(order < 0, order + axis.size, order)
    if order.size == 0 or order.min() < 0 or order.max() >= axis.size:
        call.pin(axis, "looked up outside its range")
        return None
    if np.count_nonzero(np.diff(order) != 1) >= MAX_RUNS:
        call.pin([axis, *indices], "looked up at many scattered positions")
        return None
    result = picked(call, axis, order.tolist())
    if not indices:
        call.pin(result, "a single position becomes the whole tensor")
    call.pin(indices, "positions that a site rewrites")
    call.sites.append(IndexSite(number, axis, result if indices else None))
    return result


bind("onnx.Concat", concat)
bind("onnx.Split", split)
bind("onnx.Slice", slice_)
bind("onnx.Pad com.microsoft.Pad", pad)
bind("onnx.Gather", gather, "data indices")
