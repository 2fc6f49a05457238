"""ATen's ways to give the same values another shape: views, permutations, repeats, shuffles and windows.

What ONNX spells as well follows the rules of ``layout.py``. ``b c h w`` below are batch, channel and space::

    pixel_shuffle    b (c r r) h w -> b c (h r) (w r)
    channel_shuffle  b (g c) h w   -> b (c g) h w
    unfold           h -> n size, where windows lie side by side
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Axes, Call, Declined, InputTarget
from graphprune.rules.layout import expand, reshape, reshaped, tile
from graphprune.rules.table import Rule, RuleFunction, bind
from graphprune.sizes import Size, divide

__all__ = ["dimensions"]

CHANNEL_SHUFFLE = Rule("n (g c) *s -> n (c g) *s", sizes={"g": "groups"}, sites={"groups": "g"})


def dimensions(value: int | Sequence[int] | None, rank: int) -> list[int]:
    """Dimension numbers of one or more dimensions, counted from the first one; all of them by default."""
    listed = list(range(rank)) if value is None else [value] if isinstance(value, int) else list(value)
    return [dim % rank if rank else 0 for dim in listed]


def bit_cast(call: Call) -> list[Axes | None]:
    """The same bytes as another type: every position by itself, if both types have one width."""
    x = call.axes(0)
    if call.result() != call.sizes(0):
        raise Declined("a type of another width shares bytes between positions")
    return [x]


def reshape_like(call: Call) -> list[Axes | None]:
    """The first operand in the shape of the second."""
    x, like = call.axes(0), call.axes(1)
    result = reshaped(call, x, call.sizes(1))
    for a, b in zip(result, like, strict=True):
        call.unify(a, b, "has the shape of another tensor")
    return [result]


def flatten(call: Call) -> list[Axes | None]:
    """Dimensions ``start_dim`` to ``end_dim`` become one; a scalar becomes a vector."""
    x = call.axes(0)
    if not x:
        return [(ONE,)]
    first, last = dimensions([call.attribute("start_dim", 0), call.attribute("end_dim", -1)], len(x))
    return [(*x[:first], call.space.product(x[first : last + 1]), *x[last + 1 :])]


def unflatten(call: Call) -> list[Axes | None]:
    """One dimension becomes several, whose numbers are spelled; -1 is what remains."""
    x, elements, known = call.axes(0), call.elements(1), call.result()
    at = call.attribute("dim") % len(x)
    if known is None:
        raise Declined("a result of unknown shape")
    parts = reshaped(call, [x[at]], known[at : at + len(elements)])
    for position, (element, axis) in enumerate(zip(elements, parts, strict=True)):
        if element.value != -1 and axis is not ONE:
            call.site(InputTarget(1, position), axis)
    return [(*x[:at], *parts, *x[at + 1 :])]


def permute(call: Call) -> list[Axes | None]:
    """Dimensions in the order ``dims``."""
    x = call.axes(0)
    return [tuple(x[dim] for dim in dimensions(call.attribute("dims"), len(x)))]


def swap(call: Call) -> list[Axes | None]:
    """Two dimensions change places."""
    result = list(call.axes(0))
    if result:
        a, b = dimensions([call.attribute("dim0"), call.attribute("dim1")], len(result))
        result[a], result[b] = result[b], result[a]
    return [tuple(result)]


def matrix_transpose(call: Call) -> list[Axes | None]:
    """The last two dimensions change places."""
    *batch, rows, columns = call.axes(0)
    return [(*batch, columns, rows)]


def reverse_dimensions(call: Call) -> list[Axes | None]:
    """Dimensions from the last one to the first."""
    return [call.axes(0)[::-1]]


def move(call: Call) -> list[Axes | None]:
    """Dimensions ``source`` go to ``destination``; the others stay in order."""
    x = call.axes(0)
    source, destination = (dimensions(call.attribute(name), len(x)) for name in ("source", "destination"))
    placed = dict(zip(destination, source, strict=True))
    rest = iter(dim for dim in range(len(x)) if dim not in source)
    return [tuple(x[placed[dim] if dim in placed else next(rest)] for dim in range(len(x)))]


def squeeze(call: Call) -> list[Axes | None]:
    """Removes those of the dimensions ``dim`` (all by default) that have size 1, and leaves the others alone."""
    x = call.axes(0)
    listed = set(dimensions(call.attribute("dim"), len(x)))
    gone = {dim for dim in listed if dim < len(x) and x[dim].size == 1}
    for dim in sorted(listed & set(range(len(x)))):
        if x[dim] is not ONE:
            call.pin(x[dim], "a dimension that is squeezed, or would be if one position were left")
    return [tuple(axis for dim, axis in enumerate(x) if dim not in gone)]


def unsqueeze(call: Call) -> list[Axes | None]:
    """Inserts a dimension of size 1."""
    x = call.axes(0)
    at = call.attribute("dim") % (len(x) + 1)
    return [(*x[:at], ONE, *x[at:])]


def at_least(rank: int) -> RuleFunction:
    """A rule: dimensions of size 1 are put before the others, and after them where three are wanted."""

    def rule(call: Call) -> list[Axes | None]:
        results: list[Axes | None] = []
        for index in range(len(call.operands)):
            x = call.axes(index)
            if rank == 3 and 0 < len(x) < 3:
                x = (ONE, *x, ONE) if len(x) == 1 else (*x, ONE)
            results.append((*[ONE] * (rank - len(x)), *x))
        return results

    return rule


def broadcast_all(call: Call) -> list[Axes | None]:
    """All operands, repeated to the one shape that fits them."""
    rank = max(len(call.axes(index)) for index in range(len(call.operands)))
    merged: list[Axis] = [ONE] * rank
    for index in range(len(call.operands)):
        axes = call.axes(index)
        for position, axis in enumerate(axes, rank - len(axes)):
            merged[position] = call.broadcast(merged[position], axis)
    return [tuple(merged)] * len(call.operands)


def expand_like(call: Call) -> list[Axes | None]:
    """The first operand, repeated to the shape of the second."""
    return broadcast_all(call)[:1]


def repeat_each(call: Call) -> list[Axes | None]:
    """Every position ``repeats`` times in a row."""
    x = call.axes(0)
    element = call.elements(1)[0]
    if isinstance(element.value, int) and element.value:
        repeats = call.space.leaf(element.value)
    else:
        repeats = call.fixed(element.value, "a computed number of repeats")
    call.site(InputTarget(1), repeats)
    dim = call.attribute("dim")
    if dim is None:
        return [(call.space.product([*x, repeats]),)]
    if call.attribute("output_size") is not None:
        call.pin([x[dim], repeats], "the size of the result is spelled")
    at = dim % len(x)
    return [(*x[:at], call.space.product([x[at], repeats]), *x[at + 1 :])]


def repeat_by_counts(call: Call) -> list[Axes | None]:
    """Every position as many times as a tensor says."""
    x, known = call.axes(0), call.result()
    dim = call.attribute("dim")
    call.pin(call.axes(1), "counts of repeats")
    if dim is None:
        call.pin(x, "repeated as often as a tensor says")
        return call.unknown_results("repeated as often as a tensor says")
    at = dim % len(x)
    call.pin(x[at], "repeated as often as a tensor says")
    own = call.fixed(known[at] if known else None, "repeated as often as a tensor says")
    return [(*x[:at], own, *x[at + 1 :])]


def pixel_shuffle(call: Call) -> list[Axes | None]:
    """Channels are channels, rows and columns of a block; blocks stay whole."""
    *batch, channel, height, width = call.axes(0)
    factor = int(call.attribute("upscale_factor"))
    count = divide(channel.size, factor * factor)
    if count is None:
        raise Declined("channels are no multiple of the block")
    kept = call.space.leaf(count)
    rows, columns = _block(call, factor), _block(call, factor)
    call.unify(channel, call.space.product([kept, rows, columns]))
    product = call.space.product
    return [(*batch, kept, product([height, rows]), product([width, columns]))]


def pixel_unshuffle(call: Call) -> list[Axes | None]:
    """Rows and columns of a block become channels, behind the old ones."""
    *batch, channel, height, width = call.axes(0)
    factor = int(call.attribute("downscale_factor"))
    rows, columns = _block(call, factor), _block(call, factor)
    space = [_coarse(call, axis, inner, factor) for axis, inner in ((height, rows), (width, columns))]
    return [(*batch, call.space.product([channel, rows, columns]), *space)]


def _block(call: Call, factor: int) -> Axis:
    return call.fixed(factor, "the block of a pixel shuffle")


def _coarse(call: Call, axis: Axis, inner: Axis, factor: int) -> Axis:
    """The blocks of an axis of space."""
    count = divide(axis.size, factor)
    if isinstance(count, int):
        outer = call.space.leaf(count)
        call.unify(axis, call.space.product([outer, inner]))
        return outer
    call.pin(axis, "space of symbolic size that is cut into blocks")
    return call.fixed(count, "space of symbolic size that is cut into blocks")


def unfold(call: Call) -> list[Axes | None]:
    """Windows along one dimension become a new last dimension; side by side they are a product."""
    x, known = call.axes(0), call.result()
    if not x or known is None:
        raise Declined("windows of a scalar, or of unknown number")
    at = call.attribute("dimension") % len(x)
    size, step = int(call.attribute("size")), int(call.attribute("step"))
    window, count = call.fixed(size, "a window"), known[at]
    windows: Axis
    if size == step and isinstance(count, int) and x[at].size == count * size:
        windows = call.space.leaf(count)
        call.unify(x[at], call.space.product([windows, window]))
    else:
        call.pin(x[at], "cut into windows")
        windows = call.fixed(count, "windows")
    return [(*x[:at], windows, *x[at + 1 :], window)]


def outer_grid(call: Call) -> list[Axes | None]:
    """Every vector along a dimension of its own; with ``indexing="xy"`` the first two change places."""
    parts = [axes[0] if (axes := call.axes(index)) else ONE for index in range(len(call.operands))]
    if call.attribute("indexing", "ij") == "xy" and len(parts) > 1:
        parts[:2] = parts[1::-1]
    return [tuple(parts)] * len(parts)


def cartesian_product(call: Call) -> list[Axes | None]:
    """All tuples of entries, the last vector varying fastest; a single vector as it is."""
    parts = [call.axes(index)[0] for index in range(len(call.operands))]
    if len(parts) == 1:
        return [(parts[0],)]
    whole: Size = len(parts)
    return [(call.space.product(parts), call.fixed(whole, "the places of a tuple"))]


bind("aten.view aten._unsafe_view aten.view_copy aten._reshape_copy", reshape, "self size", allowzero=1)
bind("aten.reshape", reshape, "self shape", allowzero=1)
bind("aten.view.dtype aten.view_copy.dtype", bit_cast, "self")
bind("aten.view_as aten.reshape_as", reshape_like, "self other")
bind("aten.flatten aten.ravel", flatten, "self")
bind("aten.unflatten", unflatten, "self sizes")
bind("aten.permute aten.permute_copy", permute, "self")
bind("aten.transpose aten.transpose_copy aten.swapdims", swap, "self")
bind("aten.swapaxes", swap, "self", dim0="axis0", dim1="axis1")
bind("aten.t aten.t_copy aten.numpy_T aten.matrix_H", reverse_dimensions, "self")
bind("aten.mT aten.mH aten.adjoint", matrix_transpose, "self")
bind("aten.movedim aten.moveaxis", move, "self")
bind("aten.squeeze aten.squeeze_copy", squeeze, "self")
bind("aten.unsqueeze aten.unsqueeze_copy", unsqueeze, "self")
for _rank in (1, 2, 3):
    bind(f"aten.atleast_{_rank}d", at_least(_rank), "self")
    bind(f"aten.atleast_{_rank}d.Sequence", at_least(_rank), "tensors")
bind("aten.expand aten.expand_copy aten.broadcast_to", expand, "self size")
bind("aten.expand_as", expand_like, "self other")
bind("aten.broadcast_tensors", broadcast_all, "tensors")
bind("aten.repeat", tile, "self repeats")
bind("aten.tile", tile, "self dims")
bind("aten.repeat_interleave.self_int", repeat_each, "self repeats")
bind("aten.repeat_interleave.self_Tensor", repeat_by_counts, "self repeats")
bind("aten.pixel_shuffle", pixel_shuffle, "self")
bind("aten.pixel_unshuffle", pixel_unshuffle, "self")
bind("aten.channel_shuffle aten.native_channel_shuffle", CHANNEL_SHUFFLE, "self")
bind("aten.unfold aten.unfold_copy", unfold, "self")
bind("aten.meshgrid", outer_grid, "tensors")
bind("aten.cartesian_prod", cartesian_product, "tensors")
