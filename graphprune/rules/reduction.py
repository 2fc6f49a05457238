"""Reductions, pooling and resizing.

Sums (and norms, which are sums of magnitudes) are equal to zeroing; means, maxima and the like are statistics over the
kept positions. Pooling and resizing work on space and leave channels alone.
"""

from __future__ import annotations

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Axes, Call, InputTarget, Mix
from graphprune.rules.layout import dims_operand
from graphprune.rules.positions import PLACES, located
from graphprune.rules.table import Rule, bind
from graphprune.rules.windows import sliding
from graphprune.sizes import Size

POOLING = Rule(sliding("n c *s -> n c *t"))


def _reduce(call: Call, kind: str) -> list[Axes | None]:
    x = call.axes(0)
    dims = dims_operand(call)
    if not dims:
        if call.attribute("noop_with_empty_axes", 0):
            return [x]
        dims = list(range(len(x)))
    gone = {dim % len(x) for dim in dims}
    for dim in sorted(gone):
        call.mixes.append(Mix(kind, x[dim], ((0, dim),)))
    if call.attribute("keepdims", 1):
        return [tuple(ONE if dim in gone else axis for dim, axis in enumerate(x))]
    return [tuple(axis for dim, axis in enumerate(x) if dim not in gone)]


def sum_reduction(call: Call) -> list[Axes | None]:
    """A removed position adds zero."""
    return _reduce(call, "sum")


def statistic(call: Call) -> list[Axes | None]:
    """A removed position is not seen."""
    return _reduce(call, "statistics")


def arg_reduction(call: Call) -> list[Axes | None]:
    """Results are positions."""
    x = call.axes(0)
    at = call.attribute("axis", 0) % len(x)
    located(call, at, 0)
    return [x[:at] + ((ONE,) if call.attribute("keepdims", 1) else ()) + x[at + 1 :]]


def global_pool(call: Call) -> list[Axes | None]:
    """One value for each channel."""
    n, c, *space = call.axes(0)
    call.pin(space, "space")
    return [(n, c, *[ONE] * len(space))]


def cumulative(call: Call) -> list[Axes | None]:
    """Running sums along an axis given by an operand."""
    x = call.axes(0)
    at = call.integers(1)[0] % len(x)
    call.mixes.append(Mix("sum", x[at], ((0, at),)))
    return [x]


def top_k(call: Call) -> list[Axes | None]:
    """The largest entries along an axis, and where they were."""
    x = call.axes(0)
    at = call.attribute("axis", -1) % len(x)
    known = next((sizes for sizes in call.result_sizes if sizes is not None), None)
    own = largest(call, at, known[at] if known else None)
    return [(*x[:at], own, *x[at + 1 :])] * max(len(call.result_sizes), 1)


def largest(call: Call, at: int, count: Size | None) -> Axis:
    """The axis of the ``count`` largest entries along dimension ``at``; result 1 says where they were."""
    whole = call.axes(0)[at]
    if isinstance(count, int) and isinstance(whole.size, int) and 0 < count < whole.size:
        located(call, at, 1 if len(call.result_sizes) > 1 else None, least=count)
    else:
        call.pin(whole, PLACES)
    return call.fixed(count, "the largest k")


def pooling(call: Call) -> list[Axes | None]:
    """Windows over space; the places of the maxima, where asked for, count over the whole tensor."""
    results = POOLING(call)
    if len(call.result_sizes) > 1:
        call.pin(call.axes(0), "the places of its maxima count over the whole tensor")
    return results


def resize(call: Call) -> list[Axes | None]:
    """Dimensions whose size stays are left alone, unless all share one scale; the others are space."""
    x = call.axes(0)
    known = call.result()
    listed = call.attribute("axes")
    dims = [dim % len(x) for dim in listed] if listed is not None else list(range(len(x)))
    sizes_at, scales = _sizes_and_scales(call)
    apart = call.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    result: list[Axis] = list(x)
    for index, dim in enumerate(dims):
        axis = x[dim]
        stays = (known is not None and known[dim] == axis.size) or (scales is not None and scales[index] == 1)
        if sizes_at is not None and not stays:
            stays = call.elements(sizes_at)[index].value == axis.size
        if stays and apart:
            if sizes_at is not None and axis is not ONE:
                call.site(InputTarget(sizes_at, index), axis)
            continue
        call.pin(axis, "space that is resized")
        result[dim] = call.fixed(known[dim] if known else None, "space that is resized")
    return [tuple(result)]


def _sizes_and_scales(call: Call) -> tuple[int | None, list[float] | None]:
    """The operand that spells target sizes, or the scales where they are constant."""
    sizes = call.operand(3)
    if sizes is not None and sizes.elements:
        return 3, None
    spelled = call.attribute("scales")
    if spelled is not None:
        return None, list(spelled)
    for index in (2, 1):
        operand = call.operand(index)
        value = operand.read() if operand is not None else None
        if value is not None and value.size == len(call.axes(0)):
            return None, [float(scale) for scale in value]
    return None, None


bind("onnx.ReduceSum onnx.ReduceL1 onnx.ReduceL2 onnx.ReduceSumSquare onnx.ReduceLogSum", sum_reduction, "data")
bind("onnx.ReduceMean onnx.ReduceMax onnx.ReduceMin onnx.ReduceProd onnx.ReduceLogSumExp", statistic, "data")
bind("onnx.ArgMax onnx.ArgMin", arg_reduction, "data")
bind("onnx.CumSum", cumulative, "x axis")
bind("onnx.TopK", top_k, "X")
bind("onnx.GlobalAveragePool onnx.GlobalMaxPool onnx.GlobalLpPool", global_pool, "X")
bind("onnx.AveragePool onnx.MaxPool onnx.LpPool", pooling, "X")
bind("com.microsoft.NhwcMaxPool", Rule("n *s c -> n *t c"), "x")
bind("onnx.Resize", resize, "X")
bind("onnx.Upsample", resize, "X")
