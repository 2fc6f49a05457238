"""ATen's operators that find positions at run time, or at constant places: index, gather, scatter, and writes in place.

``x[i, :, m]`` takes a tensor of integers or truth values, or nothing, for each dimension in turn. What the tensors
address is pinned, unless they are known to hold positions along it; a single list of constant positions is a selection
or permutation of its dimension. The dimensions of the index come where the addressed dimensions stood if those are
neighbours, else first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.axes import ONE, Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined
from graphprune.rules.cut import selected
from graphprune.rules.lookup import gather_elements, trilu, write_elements
from graphprune.rules.positions import addressed
from graphprune.rules.table import Rule, bind
from graphprune.sizes import Size

COMPUTED = "looked up at computed positions"
WRITTEN = "written at computed positions"


# -- advanced indexing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """A tensor among the indices: the number of its operand, the first dimension it addresses, and how many."""

    number: int
    dim: int
    span: int
    boolean: bool


def _indices(call: Call, first: int) -> list[Index]:
    found: list[Index] = []
    dim = 0
    for number in range(first, len(call.operands)):
        operand = call.operand(number)
        boolean = operand is not None and operand.boolean
        span = len(call.axes(number)) if boolean else 1
        if operand is not None:
            found.append(Index(number, dim, span, boolean))
        dim += span
    return found


def _addressed(call: Call, indices: Sequence[Index], known: Sequence[Size | None]) -> tuple[Axes, int, Axes]:
    """What several indices address: the axes of the index, the place they go to, and what is left.

    How many positions a mask finds only ``known`` tells, the sizes of the result.
    """
    data = call.axes(0)
    covered = [dim for index in indices for dim in range(index.dim, index.dim + index.span)]
    joined = {each.dim for each in indices if not each.boolean and addressed(call, each.number, data[each.dim])}
    call.pin([data[dim] for dim in covered if dim not in joined], COMPUTED)
    neighbours = covered == list(range(covered[0], covered[0] + len(covered))) if covered else True
    numbers = [index.number for index in indices]
    neighbours = neighbours and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    at = min(covered, default=indices[0].dim) if neighbours else 0
    rest = tuple(axis for dim, axis in enumerate(data) if dim not in covered)
    if any(index.boolean for index in indices):
        for index in indices:
            call.pin(call.axes(index.number), COMPUTED)
        rank = max(1 if index.boolean else len(call.axes(index.number)) for index in indices)
        return tuple(call.fixed(size, COMPUTED) for size in known[at : at + rank]), at, rest
    rank = max(len(call.axes(index.number)) for index in indices)
    merged: list[Axis] = [ONE] * rank
    for index in indices:
        axes = call.axes(index.number)
        for position, axis in enumerate(axes, rank - len(axes)):
            merged[position] = call.broadcast(merged[position], axis)
    return tuple(merged), at, rest


def index(call: Call) -> list[Axes | None]:
    """``x[...]`` with tensors as indices."""
    data, indices = call.axes(0), _indices(call, 1)
    if len(indices) == 1 and not indices[0].boolean:
        only = indices[0]
        inner = call.axes(only.number)
        result = selected(call, data[only.dim], only.number)
        middle = inner if result is None else (result,) if inner else ()
        return [(*data[: only.dim], *middle, *data[only.dim + 1 :])]
    made, at, rest = _addressed(call, indices, call.result() or (None,) * len(data))
    return [(*rest[:at], *made, *rest[at:])]


def index_put(call: Call) -> list[Axes | None]:
    """``x[...] = values`` with tensors as indices: values are repeated to what the index addresses."""
    data, values, indices = call.axes(0), call.axes(1), _indices(call, 2)
    made, at, rest = _addressed(call, indices, (None,) * len(data))
    call.pin(made, WRITTEN)
    for each in indices:
        call.pin(call.axes(each.number), WRITTEN)
    target = (*rest[:at], *made, *rest[at:])
    spare = len(values) - len(target)
    call.pin(values[: max(spare, 0)], WRITTEN)
    for axis, value in zip(target[::-1], values[::-1], strict=False):
        if axis.size == value.size:
            call.unify(axis, value)
        else:
            call.pin([value] if value.size == 1 else [axis, value], WRITTEN)
    return [data]


# -- one dimension ----------------------------------------------------------------------------------------------------


def index_select(call: Call) -> list[Axes | None]:
    """Positions along one dimension, listed by a vector; a scalar leaves a dimension of size 1."""
    data, listed = call.axes(0), call.axes(1)
    if not data:
        raise Declined("selects from a scalar")
    at = call.attribute("dim") % len(data)
    result = selected(call, data[at], 1)
    middle = ONE if not listed else listed[0] if result is None else result
    return [(*data[:at], middle, *data[at + 1 :])]


def take_along(call: Call) -> list[Axes | None]:
    """As ``gather``, index and data repeated where they have size 1; without a dimension, from the flat tensor."""
    data, index = call.axes(0), call.axes(1)
    dim = call.attribute("dim")
    if dim is None:
        call.pin([*data, *index], COMPUTED)
        return [(call.space.product(index),)]
    at = dim % len(data)
    call.pin(index[at] if addressed(call, 1, data[at]) else [data[at], index[at]], COMPUTED)
    pairs = enumerate(zip(data, index, strict=True))
    return [tuple(call.broadcast(a, b) if position != at else b for position, (a, b) in pairs)]


def scatter(call: Call) -> list[Axes | None]:
    """Writes into a copy of the data; index and source cover parts of it."""
    data, index = call.axes(0), call.axes(1)
    source = call.axes(2) if call.operand(2) is not None else index
    if not data or not index or not source:
        call.pin([*data, *index, *source], WRITTEN)
        return [data]
    write_elements(call, source, call.attribute("dim", 0))
    return [data]


def write_rows(call: Call) -> list[Axes | None]:
    """Positions along one dimension, listed by a vector, are written or added to; the others are shared."""
    data, source = call.axes(0), call.axes(2)
    call.pin(call.axes(1), WRITTEN)
    if not data or len(source) != len(data):
        call.pin([*data, *source], WRITTEN)
        return [data]
    at = call.attribute("dim") % len(data)
    call.pin([data[at], source[at]], WRITTEN)
    for dim, (a, b) in enumerate(zip(data, source, strict=True)):
        if dim != at:
            call.unify(a, b)
    return [data]


def fill_rows(call: Call) -> list[Axes | None]:
    """Positions along one dimension, listed by a vector, get one value."""
    data = call.axes(0)
    call.pin(call.axes(1), WRITTEN)
    if data:
        call.pin(data[call.attribute("dim") % len(data)], WRITTEN)
    return [data]


# -- whole tensors ----------------------------------------------------------------------------------------------------


def take(call: Call) -> list[Axes | None]:
    """Entries of the flat tensor, one for each index."""
    call.pin(call.axes(0), COMPUTED)
    return [call.axes(1)]


def one_hot(call: Call) -> list[Axes | None]:
    """A new last dimension of classes: the axis that the operand holds positions along, if it does."""
    known, count = call.result(), call.attribute("num_classes", -1)
    classes = call.space.leaf(count) if isinstance(count, int) and count > 1 else None
    if classes is not None and addressed(call, 0, classes):
        call.site(AttributeTarget("num_classes"), classes)
    else:
        classes = call.fixed(known[-1] if known else None, "classes")
    return [(*call.axes(0), classes)]


def search(call: Call) -> list[Axes | None]:
    """The place of each value among sorted ones: along a vector, or along the last dimension."""
    *rows, along = call.axes(0)
    call.pin(along, "its positions are the result")
    if call.operand(1) is None:
        return [()]
    values = call.axes(1)
    if rows:
        call.pin(values[-1], "searched in rows")
        for a, b in zip(rows, values[:-1], strict=True):
            call.unify(a, b)
    return [values]


bind("aten.index aten._unsafe_index", index, "self indices")
bind("aten.index_put aten._unsafe_index_put", index_put, "self values indices")
bind("aten.index_select", index_select, "self index")
bind("aten.gather", gather_elements, "self index", axis="dim")
bind("aten.take_along_dim", take_along, "self indices")
bind("aten.take", take, "self index")
bind("aten.scatter aten.scatter_add aten.scatter_reduce", scatter, "self index src")
bind("aten.index_add aten.index_copy aten.index_reduce", write_rows, "self index source")
bind("aten.index_fill", fill_rows, "self index")
bind("aten.one_hot", one_hot, "self")
bind("aten.searchsorted", search, "sorted_sequence self")
bind("aten.bucketize", Rule("*n, b! -> *n"), "self boundaries")
bind("aten.tril aten.triu", trilu, "self")
