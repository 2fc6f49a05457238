"""Operators that join and cut axes: concat, split, slice, pad, gather at constant positions.

A cut axis is a concatenation of runs; numbers that say where a run begins or ends are sites.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from graphprune.axes import Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined, IndexSite, InputTarget
from graphprune.rules.table import bind

__all__ = ["picked"]

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
        result[dim] = _taken(call, axis, index, slice(*slice(start, end, step).indices(axis.size)), old)
    return [tuple(result)]


def _taken(call: Call, axis: Axis, index: int, span: slice, old: bool) -> Axis:
    """The positions of a slice, with its bounds as sites.

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
    taken = body
    if step > 1:
        taken = call.space.leaf(count)
        within = call.fixed(step, "the stride of a slice")
        call.unify(body, call.space.product([taken, within]), "the stride of a slice")
    start, end = (
        (AttributeTarget("starts", index), AttributeTarget("ends", index))
        if old
        else (
            InputTarget(1, index),
            InputTarget(2, index),
        )
    )
    call.site(start, head, whole=axis, offset=phase)
    call.site(end, head, body, whole=axis)
    return taken


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
        runs: list[Axis] = []
        axis = call.space.split(axis, max(0, -before))[1]
        axis = call.space.split(axis, int(axis.size) - max(0, -after))[0]  # type: ignore[arg-type]
        if before < 0 or after < 0:
            call.pin(x[dim], "cropped by negative padding")
        for number, place in ((before, index), (after, index + len(dims))):
            run = call.space.leaf(number) if number > 0 else None
            if run is not None:
                call.site(AttributeTarget(name, place) if spelled is not None else InputTarget(1, place), run)
            runs.append(run if run is not None else call.space.concat([]))
        result[dim] = call.space.concat([runs[0], axis, runs[1]])
    return [tuple(result)]


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
    axis = data[at]
    operand = call.operand(1)
    positions = operand.read() if operand is not None and len(indices) <= 1 else None
    if positions is None or not isinstance(axis.size, int):
        call.pin(axis, "looked up at computed positions")
        return [(*data[:at], *indices, *data[at + 1 :])]
    order = np.asarray(positions).reshape(-1).astype(np.int64)
    order = np.where(order < 0, order + axis.size, order)
    if order.size == 0 or order.min() < 0 or order.max() >= axis.size:
        call.pin(axis, "looked up outside its range")
        return [(*data[:at], *indices, *data[at + 1 :])]
    if np.count_nonzero(np.diff(order) != 1) >= MAX_RUNS:
        call.pin([axis, *indices], "looked up at many scattered positions")
        return [(*data[:at], *indices, *data[at + 1 :])]
    taken = picked(call, axis, order.tolist())
    if not indices:
        call.pin(taken, "a single position becomes the whole tensor")
    call.pin(indices, "positions that a site rewrites")
    call.sites.append(IndexSite(1, axis, taken if indices else None))
    result = (taken,) if indices else ()
    return [(*data[:at], *result, *data[at + 1 :])]


bind("onnx.Concat", concat)
bind("onnx.Split", split)
bind("onnx.Slice", slice_)
bind("onnx.Pad com.microsoft.Pad", pad)
bind("onnx.Gather", gather, "data indices")
