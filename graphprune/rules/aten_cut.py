"""ATen's ways to join and cut axes: cat, stack, split, select, slice, roll, flip, pad.

Numbers that say where a run begins or ends are sites. An axis that is pinned already is not followed position by
position: its parts are pinned axes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphprune.axes import ONE, Axis
from graphprune.rules import cut
from graphprune.rules.aten_layout import dimensions
from graphprune.rules.call import Axes, Call, Declined, InputTarget
from graphprune.rules.cut import locked, padded, picked, taken
from graphprune.rules.table import bind
from graphprune.sizes import Size

MAX_FLIPPED = 1024
"""A longer axis is not taken apart into positions to be reversed."""

PART = "part of an axis that keeps all its positions"


# -- joining ----------------------------------------------------------------------------------------------------------


def cat(call: Call) -> list[Axes | None]:
    """Runs one after the other along ``axis``; vectors of no elements are left out, as ATen does."""
    operands = [call.axes(index) for index in range(len(call.operands))]
    kept = [axes for axes in operands if len(axes) != 1 or axes[0].size != 0] or operands[:1]
    return [_joined(call, kept, call.attribute("axis", 0))]


def _joined(call: Call, operands: Sequence[Axes], dim: int) -> Axes:
    rank = len(operands[0])
    if any(len(axes) != rank for axes in operands):
        raise Declined("operands of different rank")
    result = list(operands[0])
    for axes in operands[1:]:
        for position in range(rank):
            if position != dim % rank:
                call.unify(result[position], axes[position])
    runs = [axes[dim % rank] for axes in operands]
    result[dim % rank] = call.space.concat(runs, call.why("joins runs of symbolic size"))
    return tuple(result)


def cat_columns(call: Call) -> list[Axes | None]:
    """``hstack``: along the second dimension; vectors and scalars along the first."""
    operands = [axes or (ONE,) for axes in map(call.axes, range(len(call.operands)))]
    return [_joined(call, operands, 0 if len(operands[0]) == 1 else 1)]


def cat_rows(call: Call) -> list[Axes | None]:
    """``vstack``: along the first dimension; vectors and scalars are rows."""
    operands = [(*[ONE] * (2 - len(axes)), *axes) for axes in map(call.axes, range(len(call.operands)))]
    return [_joined(call, operands, 0)]


def cat_depth(call: Call) -> list[Axes | None]:
    """``dstack``: along the third dimension; vectors are rows of a matrix without depth."""
    operands = [
        (ONE, *(axes or (ONE,)), ONE) if len(axes) < 2 else (*axes, *[ONE] * (3 - len(axes)))
        for axes in map(call.axes, range(len(call.operands)))
    ]
    return [_joined(call, operands, 2)]


def cat_vectors(call: Call) -> list[Axes | None]:
    """``column_stack``: along the second dimension; vectors and scalars are columns."""
    operands = [
        (*(axes or (ONE,)), ONE) if len(axes) < 2 else axes for axes in map(call.axes, range(len(call.operands)))
    ]
    return [_joined(call, operands, 1)]


def stack(call: Call) -> list[Axes | None]:
    """A new dimension with a position for each operand; the others are shared."""
    result = list(call.axes(0))
    for index in range(1, len(call.operands)):
        for a, b in zip(result, call.axes(index), strict=True):
            call.unify(a, b)
    count = len(call.operands)
    at = call.attribute("dim", 0) % (len(result) + 1)
    new = ONE if count == 1 else call.fixed(count, "every position is an operand")
    return [(*result[:at], new, *result[at:])]


def block_diagonal(call: Call) -> list[Axes | None]:
    """Blocks of two dimensions, each beside and below the one before it."""
    blocks = [(*[ONE] * (2 - len(axes)), *axes) for axes in map(call.axes, range(len(call.operands)))]
    return [tuple(call.space.concat([block[dim] for block in blocks]) for dim in (0, 1))]


# -- cutting ----------------------------------------------------------------------------------------------------------


def split_sizes(call: Call) -> list[Axes | None]:
    """Runs of spelled sizes; a symbolic or pinned axis is not taken apart."""
    x = call.axes(0)
    at = call.attribute("axis", 0) % len(x)
    spelled = [element.value for element in call.elements(1)]
    if not isinstance(x[at].size, int) or not all(isinstance(size, int) for size in spelled) or locked(call, x[at]):
        return pieces(call)
    return cut.split(call)


def pieces(call: Call) -> list[Axes | None]:
    """Runs whose sizes nobody spells: the axis keeps all its positions."""
    x = call.axes(0)
    at = call.attribute("axis", 0) % len(x)
    call.pin(x[at], "cut into runs whose sizes are not spelled")
    return [(*x[:at], call.fixed(sizes[at] if sizes else None, PART), *x[at + 1 :]) for sizes in call.result_sizes]


def column_pieces(call: Call) -> list[Axes | None]:
    """Runs of columns, or of a vector."""
    at = min(len(call.axes(0)) - 1, 1)
    return pieces(replace(call, attributes={**call.attributes, "axis": at}))


def unbind(call: Call) -> list[Axes | None]:
    """Every position becomes a tensor of its own."""
    x = call.axes(0)
    at = call.attribute("dim", 0) % len(x)
    call.pin(x[at], "every position is a result of its own")
    return [(*x[:at], *x[at + 1 :])] * len(call.result_sizes)


def select(call: Call) -> list[Axes | None]:
    """One position, which stays; those before it may go."""
    x = call.axes(0)
    at = call.attribute("dim", 0) % len(x)
    axis, index = x[at], call.elements(1)[0].value
    if not locked(call, axis):
        if not isinstance(index, int) or not isinstance(axis.size, int):
            call.pin(axis, "a computed position becomes the whole tensor")
        else:
            index += axis.size if index < 0 else 0
            call.pin(call.space.take(axis, index, index + 1), "a single position becomes the whole tensor")
            call.site(InputTarget(1), call.space.take(axis, 0, index), whole=axis)
    return [(*x[:at], *x[at + 1 :])]


def narrow(call: Call) -> list[Axes | None]:
    """``length`` positions from ``start`` on."""
    x = call.axes(0)
    at = call.attribute("dim") % len(x)
    axis, start, length = x[at], *(call.elements(index)[0].value for index in (1, 2))
    if start == 0 and length == axis.size and isinstance(length, int):
        call.site(InputTarget(2), axis)
        return [x]
    if not isinstance(axis.size, int) or not isinstance(start, int) or not isinstance(length, int) or not length:
        return [_elsewhere(call, at)]
    if locked(call, axis):
        return [(*x[:at], call.fixed(length, PART), *x[at + 1 :])]
    start += axis.size if start < 0 else 0
    part = call.space.take(axis, start, start + length)
    call.site(InputTarget(1), call.space.take(axis, 0, start), whole=axis)
    call.site(InputTarget(2), part, whole=axis)
    return [(*x[:at], part, *x[at + 1 :])]


def narrow_anywhere(call: Call) -> list[Axes | None]:
    """``length`` positions from where a tensor says."""
    return [_elsewhere(call, call.attribute("dim") % len(call.axes(0)))]


def _elsewhere(call: Call, at: int) -> Axes:
    x, known = call.axes(0), call.result()
    call.pin(x[at], "cut at computed places, or along a symbolic axis")
    return (*x[:at], call.fixed(known[at] if known else None, PART), *x[at + 1 :])


def slice_(call: Call) -> list[Axes | None]:
    """``start:end:step`` along one dimension; a bound that is left out is that of the axis."""
    x = call.axes(0)
    at = call.attribute("dim", 0) % len(x)
    part = _span(call, x[at], (1, 2))
    return [_elsewhere(call, at) if part is None else (*x[:at], part, *x[at + 1 :])]


def slice_scatter(call: Call) -> list[Axes | None]:
    """A copy of the first operand in which a slice is the second one."""
    x, source = call.axes(0), call.axes(1)
    at = call.attribute("dim", 0) % len(x)
    part = _span(call, x[at], (2, 3))
    for dim, (a, b) in enumerate(zip(x, source, strict=True)):
        if dim != at:
            call.unify(a, b)
        elif part is None:
            call.pin([a, b], "written at computed places, or along a symbolic axis")
        else:
            call.unify(part, b)
    return [x]


def _span(call: Call, axis: Axis, bounds: tuple[int, int]) -> Axis | None:
    """The positions of an axis between two bounds, which are operands; None where those are not known."""
    spelled: list[Size | None] = []
    for number, default in zip(bounds, (0, axis.size), strict=True):
        given = call.operand(number) is not None
        spelled.append(call.elements(number)[0].value if given else default)
    start, end = spelled
    step = call.attribute("step")
    if start == 0 and step == 1 and (end == axis.size or (isinstance(end, int) and end >= 2**31 - 1)):
        # An end that is the old size would do for any smaller one too.
        return axis
    if not isinstance(axis.size, int) or not isinstance(start, int) or not isinstance(end, int) or step is None:
        return None
    span = slice(*slice(start, end, step).indices(axis.size))
    if locked(call, axis):
        return call.fixed(len(range(*span.indices(axis.size))), PART)
    places = [InputTarget(number) if call.operand(number) is not None else None for number in bounds]
    return taken(call, axis, span, *places)


def select_scatter(call: Call) -> list[Axes | None]:
    """A copy of the first operand in which one position is the second one."""
    x, source = call.axes(0), call.axes(1)
    at = call.attribute("dim") % len(x)
    call.pin(x[at], "one of its positions is written")
    for a, b in zip((*x[:at], *x[at + 1 :]), source, strict=True):
        call.unify(a, b)
    return [x]


# -- reordering -------------------------------------------------------------------------------------------------------


def roll(call: Call) -> list[Axes | None]:
    """The last ``shifts`` positions come first; of a cut axis, as many as are left of them."""
    x = list(call.axes(0))
    shifts = [element.value for element in call.elements(1)]
    dims = call.attribute("dims")
    if not dims:
        call.pin(x, "rolled as one long axis")
        return [tuple(x)]
    for index, (shift, dim) in enumerate(zip(shifts, dimensions(dims, len(x)), strict=True)):
        axis = x[dim]
        if locked(call, axis):
            continue
        if not isinstance(shift, int) or not isinstance(axis.size, int):
            call.pin(axis, "rolled by a computed number, or along a symbolic axis")
            continue
        border = axis.size - shift % axis.size if axis.size else 0
        head, tail = call.space.split(axis, border)
        call.site(InputTarget(1, index), tail, whole=axis)
        x[dim] = call.space.concat([tail, head])
    return [tuple(x)]


def flip(call: Call) -> list[Axes | None]:
    """Positions from the last one to the first."""
    x = list(call.axes(0))
    for dim in dimensions(call.attribute("dims"), len(x)):
        x[dim] = _reversed(call, x[dim])
    return [tuple(x)]


def _reversed(call: Call, axis: Axis) -> Axis:
    if locked(call, axis):
        return axis
    if not isinstance(axis.size, int) or axis.size > MAX_FLIPPED:
        call.pin(axis, "a long or symbolic axis is reversed")
        return axis
    return picked(call, axis, range(axis.size - 1, -1, -1))


def rotate(call: Call) -> list[Axes | None]:
    """Quarter turns of two dimensions."""
    x = list(call.axes(0))
    a, b = dimensions(call.attribute("dims"), len(x))
    turns = call.attribute("k", 1) % 4
    if turns in (1, 2):
        x[b] = _reversed(call, x[b])
    if turns in (2, 3):
        x[a] = _reversed(call, x[a])
    if turns % 2:
        x[a], x[b] = x[b], x[a]
    return [tuple(x)]


def diagonal(call: Call) -> list[Axes | None]:
    """A diagonal of two dimensions becomes the last one."""
    x, known = call.axes(0), call.result()
    pair = dimensions([call.attribute("dim1", 0), call.attribute("dim2", 1)], len(x))
    call.pin([x[dim] for dim in pair], "a diagonal over both axes")
    rest = [axis for dim, axis in enumerate(x) if dim not in pair]
    return [(*rest, call.fixed(known[-1] if known else None, "a diagonal over both axes"))]


# -- padding ----------------------------------------------------------------------------------------------------------


def pad(call: Call) -> list[Axes | None]:
    """Two numbers for each dimension, from the last one on; a constant adds runs that can be cut, copies pin."""
    x, known = list(call.axes(0)), call.result()
    numbers = [element.value for element in call.elements(1)]
    constant = call.attribute("constant", True) and call.attribute("mode", "constant") == "constant"
    for index in range(0, len(numbers), 2):
        dim = len(x) - 1 - index // 2
        before, after = numbers[index : index + 2]
        axis = x[dim]
        if before == 0 and after == 0:
            continue
        exact = constant and isinstance(before, int) and isinstance(after, int) and isinstance(axis.size, int)
        if not exact:
            call.pin(axis, "padded by copies, at computed places, or along a symbolic axis")
        if not exact or locked(call, axis):
            x[dim] = call.fixed(known[dim] if known else None, "a padded axis")
            continue
        assert isinstance(before, int)
        assert isinstance(after, int)
        x[dim] = padded(call, axis, (before, after), [InputTarget(1, index), InputTarget(1, index + 1)])
    return [tuple(x)]


bind("aten.cat aten.concat aten.concatenate", cat, "tensors", axis="dim")
bind("aten.hstack", cat_columns, "tensors")
bind("aten.vstack aten.row_stack", cat_rows, "tensors")
bind("aten.dstack", cat_depth, "tensors")
bind("aten.column_stack", cat_vectors, "tensors")
bind("aten.stack", stack, "tensors")
bind("aten.block_diag", block_diagonal, "tensors")
bind(
    "aten.split_with_sizes aten.split_with_sizes_copy aten.unsafe_split_with_sizes aten.split.default",
    split_sizes,
    "self split_sizes",
    axis="dim",
)
bind("aten.split.sizes", split_sizes, "self split_size", axis="dim")
bind("aten.chunk aten.unsafe_chunk aten.split.Tensor aten.unsafe_split aten.tensor_split", pieces, "self", axis="dim")
bind("aten.hsplit", column_pieces, "self")
bind("aten.vsplit", pieces, "self", axis=0)
bind("aten.dsplit", pieces, "self", axis=2)
bind("aten.unbind aten.unbind_copy", unbind, "self")
bind("aten.select aten.select_copy", select, "self index")
bind("aten.narrow aten.narrow_copy", narrow, "self start length")
bind("aten.narrow.Tensor", narrow_anywhere, "self")
bind("aten.slice aten.slice_copy", slice_, "self start end")
bind("aten.slice_scatter", slice_scatter, "self src start end")
bind("aten.select_scatter", select_scatter, "self src")
bind("aten.roll", roll, "self shifts")
bind("aten.flip", flip, "self")
bind("aten.fliplr", flip, "self", dims=[1])
bind("aten.flipud", flip, "self", dims=[0])
bind("aten.rot90", rotate, "self")
bind("aten.diagonal aten.diagonal_copy", diagonal, "self")
bind("aten.linalg_diagonal", diagonal, "A")
bind("aten.pad aten.constant_pad_nd", pad, "self pad")
bind(
    "aten.reflection_pad1d aten.reflection_pad2d aten.reflection_pad3d aten.replication_pad1d aten.replication_pad2d "
    "aten.replication_pad3d",
    pad,
    "self padding",
    constant=False,
)
bind("aten._pad_circular aten._pad_enum", pad, "self pad", constant=False)
