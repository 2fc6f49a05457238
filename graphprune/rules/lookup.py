"""Operators that find their positions at run time: gather by computed index, scatter, one-hot, non-zero.

The axis that is looked up is pinned, unless the index is known to hold positions along it; the others pass through.
"""

from __future__ import annotations

from graphprune.axes import Axis
from graphprune.rules.call import Axes, Call, InputTarget
from graphprune.rules.positions import addressed
from graphprune.rules.table import Rule, bind

__all__ = ["gather_elements", "trilu", "write_elements"]


def gather_elements(call: Call) -> list[Axes | None]:
    """Index and data have the same rank; along ``axis`` anything may be taken, elsewhere the same position."""
    data, index = call.axes(0), call.axes(1)
    at = call.attribute("axis", 0) % len(data)
    call.pin(index[at] if addressed(call, 1, data[at]) else [data[at], index[at]], "looked up at computed positions")
    for dim, (a, b) in enumerate(zip(data, index, strict=True)):
        if dim != at:
            if a.size == b.size:
                call.unify(a, b)
            else:
                call.pin([a, b], "looked up in a part of the axis")
    return [index]


def gather_nd(call: Call) -> list[Axes | None]:
    """The last index dimension addresses leading data dimensions; the rest of the data passes through."""
    data, index = call.axes(0), call.axes(1)
    batch = call.attribute("batch_dims", 0)
    depth = index[-1].size
    if not isinstance(depth, int):
        call.pin([*data, *index], "looked up by an index of unknown depth")
        return call.unknown_results("looked up")
    call.pin([*data[: batch + depth], *index], "looked up at computed positions")
    return [(*index[:-1], *data[batch + depth :])]


def scatter_elements(call: Call) -> list[Axes | None]:
    """Writes into a copy of the data; index and updates cover parts of it."""
    write_elements(call, call.axes(2), call.attribute("axis", 0))
    return [call.axes(0)]


def write_elements(call: Call, source: Axes, dim: int) -> None:
    """Relate the axes of the data, of the index along dimension ``dim`` of it, and of what is written there."""
    data, index = call.axes(0), call.axes(1)
    along = dim % len(data)
    known = addressed(call, 1, data[along])
    for place, (a, b, c) in enumerate(zip(data, index, source, strict=True)):
        if place != along and a.size == b.size == c.size:
            call.unify(a, b)
            call.unify(a, c)
        else:
            call.pin([b, c] if known and place == along else [a, b, c], "written at computed positions")


def scatter_nd(call: Call) -> list[Axes | None]:
    """The last index dimension addresses leading data dimensions; whole slices of the rest are written."""
    data, index, updates = call.axes(0), call.axes(1), call.axes(2)
    depth = index[-1].size
    if not isinstance(depth, int):
        call.pin([*data, *index, *updates], "written by an index of unknown depth")
        return [data]
    call.pin([*data[:depth], *index, *updates[: len(index) - 1]], "written at computed positions")
    for a, b in zip(data[depth:], updates[len(index) - 1 :], strict=False):
        call.unify(a, b)
    return [data]


def like_input(call: Call) -> list[Axes | None]:
    """A fresh tensor of the operand's shape."""
    return [call.axes(0)]


def trilu(call: Call) -> list[Axes | None]:
    """Keeps a triangle of the last two dimensions."""
    x = call.axes(0)
    call.pin(x[-2:], "a triangle over both axes")
    return [x]


bind("onnx.GatherElements", gather_elements, "data indices")
bind("onnx.GatherND com.microsoft.GatherND", gather_nd, "data indices")
bind("onnx.ScatterElements onnx.Scatter", scatter_elements)
bind("onnx.ScatterND", scatter_nd, "data indices updates")


def one_hot(call: Call) -> list[Axes | None]:
    """A new axis of classes beside those of the indices: the one they are positions along, if they are any."""
    indices, known = call.axes(0), call.result()
    at = call.attribute("axis", -1) % (len(indices) + 1)
    depth = call.operand(1)
    count = depth.elements[0].value if depth is not None and depth.elements else None
    classes: Axis | None = call.space.leaf(count) if isinstance(count, int) and count > 1 else None
    if classes is not None and addressed(call, 0, classes):
        call.elements(1)
        call.site(InputTarget(1), classes)
    else:
        classes = call.fixed(known[at] if known else None, "classes")
    return [(*indices[:at], classes, *indices[at:])]


def reverse_sequence(call: Call) -> list[Axes | None]:
    """The first positions along time, as many as each sequence has, in reverse."""
    x = call.axes(0)
    batch, time = call.attribute("batch_axis", 1), call.attribute("time_axis", 0)
    call.pin(x[time], "reversed in part")
    call.unify(x[batch], call.axes(1)[0])
    return [x]


def compress(call: Call) -> list[Axes | None]:
    """Positions along ``axis`` (of the flat tensor without one) where a condition holds."""
    x, known = call.axes(0), call.result()
    made = known or (None,) * len(x)
    if "axis" not in call.attributes:
        call.pin(x, "positions chosen at run time")
        return [(call.fixed(made[0], "positions chosen at run time"),)]
    at = call.attribute("axis") % len(x)
    call.pin(x[at], "positions chosen at run time")
    return [(*x[:at], call.fixed(made[at], "positions chosen at run time"), *x[at + 1 :])]


def tensor_scatter(call: Call) -> list[Axes | None]:
    """A cache written along one axis, for each batch entry from a place of its own."""
    cache, update = call.axes(0), call.axes(1)
    at = call.attribute("axis", -2) % len(cache)
    call.pin([cache[at], update[at]], "written at computed positions")
    for dim, (a, b) in enumerate(zip(cache, update, strict=True)):
        if dim != at:
            call.unify(a, b)
    if call.operand(2) is not None:
        call.unify(cache[0], call.axes(2)[0])
    return [cache]


bind("onnx.OneHot", one_hot, "indices")
bind("onnx.ReverseSequence", reverse_sequence, "input sequence_lens")
bind("onnx.Compress", compress, "input")
bind("onnx.TensorScatter", tensor_scatter, "past_cache update write_indices")
bind("com.microsoft.TorchEmbedding", Rule("v! c, *n, -?, -? -> *n c"), "weight indices")
bind("onnx.RandomNormalLike onnx.RandomUniformLike", like_input)
bind("onnx.Trilu", trilu, "input")
bind("com.microsoft.Trilu", trilu, "X")
