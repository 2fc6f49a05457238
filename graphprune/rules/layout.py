"""Operators that give the same values another shape: reshape, transpose, squeeze, expand, tile, depth to space.

They are relations between axes only. Where a shape is spelled in the model, each of its numbers is a site.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Axes, Call, Declined, InputTarget
from graphprune.rules.table import bind
from graphprune.sizes import Size, divide, fresh, product_size

__all__ = [
    "constant_of_shape",
    "expand",
    "own_result",
    "reshape",
    "reshaped",
    "shape_of",
    "squeeze",
    "tile",
    "transpose",
]


def _segments(ins: Sequence[Axis], outs: Sequence[Size]) -> list[tuple[list[int], list[int]]] | None:
    """The shortest runs of input and output dimensions with equal sizes; None where sizes cannot be matched."""
    runs: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(ins) or o < len(outs):
        left: list[int] = []
        right: list[int] = []
        have: Size = 1
        want: Size = 1
        while True:
            if left and right and have == want:
                break
            can_in, can_out = i < len(ins), o < len(outs)
            if not left and can_in:
                grow_in = True
            elif not right and can_out:
                grow_in = False
            elif divide(want, have) is not None:
                grow_in = True
            elif divide(have, want) is not None:
                grow_in = False
            elif isinstance(have, int) and isinstance(want, int):
                grow_in = have < want
            else:
                return None
            if grow_in and can_in:
                have, i = have * ins[i].size, i + 1
                left.append(i - 1)
            elif not grow_in and can_out:
                want, o = want * outs[o], o + 1
                right.append(o - 1)
            elif have == want:
                break
            else:
                return None
        runs.append((left, right))
    return runs


def reshaped(call: Call, axes: Sequence[Axis], sizes: Sequence[Size]) -> Axes:
    """The axes of a tensor with ``axes`` that is read, row by row, with dimensions of ``sizes``."""
    for axis in axes:
        if axis.size == 1 and axis is not ONE:
            call.pin(axis, "one position becomes a dimension of its own")
    wide_in = [axis for axis in axes if axis.size != 1]
    wide_out = [size for size in sizes if size != 1]
    runs = None if 0 in wide_out else _segments(wide_in, wide_out)
    if runs is None:
        call.pin(wide_in, "a reshape whose sizes cannot be matched")
        return tuple(call.fixed(size, "a reshape whose sizes cannot be matched") for size in sizes)
    result: list[Axis] = [ONE] * len(wide_out)
    for left, right in runs:
        whole = call.space.product(wide_in[i] for i in left)
        if len(right) == 1:
            result[right[0]] = whole
            continue
        parts = [call.space.leaf(wide_out[o]) for o in right]
        if parts:
            call.unify(whole, call.space.product(parts), "divides an axis")
        for o, part in zip(right, parts, strict=True):
            result[o] = part
            call.pin([leaf for leaf in call.space.leaves(part) if not isinstance(leaf.size, int)], "a symbolic size")
    dims = iter(result)
    return tuple(ONE if size == 1 else next(dims) for size in sizes)


def reshape(call: Call) -> list[Axes | None]:
    """Target numbers: 0 copies the input's dimension (unless ``allowzero``), -1 is what remains."""
    x, elements = call.axes(0), call.elements(1)
    known = call.result() or ()
    allow_zero = bool(call.attribute("allowzero", 0))
    sizes: list[Size | None] = []
    for position, element in enumerate(elements):
        value = element.value
        if value == 0 and not allow_zero:
            value = x[position].size
        elif value is None and position < len(known):
            value = known[position]
        sizes.append(value)
    unknown = [position for position, value in enumerate(sizes) if value is None or value == -1]
    if len(unknown) == 1:
        rest = divide(
            product_size(axis.size for axis in x), product_size(s for s in sizes if s is not None and s != -1)
        )
        if rest is None and unknown[0] < len(known):
            rest = known[unknown[0]]
        sizes[unknown[0]] = rest
    result = reshaped(call, x, [fresh() if size is None or size == -1 else size for size in sizes])
    for position, (element, axis) in enumerate(zip(elements, result, strict=True)):
        if element.value == 0 and not allow_zero:
            call.unify(x[position], axis, "a copied dimension")
        elif element.value != -1 and axis is not ONE:
            call.site(InputTarget(1, position), axis)
    return [result]


def flatten(call: Call) -> list[Axes | None]:
    """Two dimensions: those before ``axis`` and the rest."""
    x = call.axes(0)
    at = call.attribute("axis", 1)
    at = at + len(x) if at < 0 else at
    return [(call.space.product(x[:at]), call.space.product(x[at:]))]


def transpose(call: Call) -> list[Axes | None]:
    """Dimensions in the order ``perm``, reversed by default."""
    x = call.axes(0)
    order = call.attribute("perm", range(len(x) - 1, -1, -1))
    return [tuple(x[dim] for dim in order)]


def dims_operand(call: Call, index: int = 1, attribute: str = "axes") -> list[int] | None:
    """Dimension numbers from an attribute or, in newer opsets, from an operand; None where absent."""
    value = call.attribute(attribute)
    if value is not None:
        return list(value)
    return list(call.integers(index)) if call.operand(index) is not None else None


def squeeze(call: Call) -> list[Axes | None]:
    """Removes dimensions of size 1."""
    x = call.axes(0)
    dims = dims_operand(call)
    gone = {d % len(x) for d in dims} if dims is not None else {d for d, axis in enumerate(x) if axis.size == 1}
    if dims is None:
        call.pin(x, "would be squeezed too if one position were left, since the dimensions are not said")
    for dim in gone:
        if x[dim] is not ONE:
            call.pin(x[dim], "a dimension that is squeezed")
    return [tuple(axis for dim, axis in enumerate(x) if dim not in gone)]


def unsqueeze(call: Call) -> list[Axes | None]:
    """Inserts dimensions of size 1."""
    x = call.axes(0)
    dims = dims_operand(call) or []
    rank = len(x) + len(dims)
    new = {dim % rank for dim in dims}
    rest = iter(x)
    return [tuple(ONE if dim in new else next(rest) for dim in range(rank))]


def expand(call: Call) -> list[Axes | None]:
    """Repeats dimensions of size 1; a new extent is an axis of its own, which can be cut like any other.

    A 1 leaves a dimension as it is, and so does ATen's -1.
    """
    x, elements = call.axes(0), call.elements(1)
    known = call.result()
    rank = max(len(x), len(elements))
    result: list[Axis] = [ONE] * (rank - len(x)) + list(x)
    for position, element in enumerate(elements, rank - len(elements)):
        if element.value in (1, -1):
            continue
        axis = result[position]
        if axis.size == 1:
            size = element.value if element.value is not None else known[position] if known else None
            if element.axis is not None:
                new: Axis = element.axis
            elif isinstance(size, int):
                new = call.space.leaf(size)
            else:
                new = call.fixed(size, "a computed extent")
            result[position] = call.broadcast(axis, new)
        elif element.value is None:
            call.pin(axis, "may be expanded by a computed extent")
        if result[position] is not ONE:
            call.site(InputTarget(1, position - (rank - len(elements))), result[position])
    return [tuple(result)]


def tile(call: Call) -> list[Axes | None]:
    """Each dimension becomes repeats times itself; dimensions and numbers of repeats are aligned at the last one."""
    x, elements = call.axes(0), call.elements(1)
    rank = max(len(x), len(elements))
    result: list[Axis] = [ONE] * (rank - len(x)) + list(x)
    for index, element in enumerate(elements):
        if element.value == 1:
            continue
        position = rank - len(elements) + index
        if element.axis is not None:
            repeats = element.axis
        elif isinstance(element.value, int) and element.value:
            repeats = call.space.leaf(element.value)
        else:
            repeats = call.fixed(element.value, "a computed number of repeats")
        call.site(InputTarget(1, index), repeats)
        result[position] = call.space.product([repeats, result[position]])
    return [tuple(result)]


def depth_to_space(call: Call) -> list[Axes | None]:
    """Channels are block rows, block columns and channels (DCR), or channels first (CRD); blocks stay whole."""
    n, c, *_ = call.axes(0)
    block = int(call.attribute("blocksize"))
    rest = divide(c.size, block * block)
    if rest is None:
        raise Declined("channels are no multiple of the block")
    kept = call.space.leaf(rest)
    blocks = call.fixed(block * block, "the block of DepthToSpace")
    crd = call.attribute("mode", "DCR") == "CRD"
    call.unify(c, call.space.product([kept, blocks] if crd else [blocks, kept]))
    return [(n, kept, *_spatial(call, 2))]


def space_to_depth(call: Call) -> list[Axes | None]:
    """New channels are block rows, block columns, and the old channels (DCR), or old channels first (CRD)."""
    n, c, *space = call.axes(0)
    call.pin(space, "space that moves into channels")
    block = int(call.attribute("blocksize"))
    blocks = call.fixed(block * block, "the block of SpaceToDepth")
    parts = [c, blocks] if call.attribute("mode", "DCR") == "CRD" else [blocks, c]
    return [(n, call.space.product(parts), *_spatial(call, 2))]


def _spatial(call: Call, count: int) -> list[Axis]:
    known = call.result()
    call.pin(call.axes(0)[2:], "space")
    return [call.fixed(known[2 + dim] if known else None, "space") for dim in range(count)]


def constant_of_shape(call: Call) -> list[Axes | None]:
    """One value everywhere: every spelled extent is an axis of its own."""
    result: list[Axis] = []
    for position, element in enumerate(call.elements(0)):
        if element.axis is not None:
            result.append(element.axis)
        elif isinstance(element.value, int) and element.value:
            result.append(call.space.leaf(element.value))
        else:
            result.append(call.fixed(element.value, "a computed extent"))
        call.site(InputTarget(0, position), result[-1])
    return [tuple(result)]


def own_result(call: Call) -> list[Axes | None]:
    """Results made of shapes or numbers alone: nothing is coupled, nothing can be cut."""
    return call.unknown_results("made by this operator")


def shape_of(call: Call) -> list[Axes | None]:
    """Sizes, which follow every cut of the operand by themselves."""
    call.related.add(0)
    return own_result(call)


bind("onnx.Reshape", reshape, "data shape")
bind("onnx.Flatten", flatten, "input")
bind("onnx.Transpose", transpose, "data")
bind("onnx.Squeeze", squeeze)
bind("onnx.Unsqueeze", unsqueeze)


def expand_dims(call: Call) -> list[Axes | None]:
    """Inserts one dimension of size 1."""
    x = call.axes(0)
    at = call.integers(1)[0] % (len(x) + 1)
    return [(*x[:at], ONE, *x[at:])]


bind("com.microsoft.ExpandDims", expand_dims, "X axis")
bind("onnx.Expand", expand, "input shape")
bind("onnx.Tile", tile, "input repeats")
bind("onnx.DepthToSpace", depth_to_space, "input")
bind("onnx.SpaceToDepth", space_to_depth, "input")
bind("onnx.ConstantOfShape", constant_of_shape, "input")
bind("onnx.Shape onnx.Size", shape_of, "data")
