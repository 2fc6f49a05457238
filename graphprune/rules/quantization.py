"""Quantised operators: integers with scales and zero points, ``x = scale * (q - zero_point)``.

Scales and zero points are for a whole tensor (pinned, nothing to cut), for each position of one axis (cut along with
it), or for each block of positions: then blocks are the units. A removed position of a sum must hold the zero point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.axes import ONE, Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined, Mix
from graphprune.rules.contraction import matmul_text
from graphprune.rules.cut import concat
from graphprune.rules.pointwise import first_only
from graphprune.rules.reduction import statistic, sum_reduction
from graphprune.rules.table import Rule, bind
from graphprune.sizes import divide

_DOMAIN = "com.microsoft."


def _rank(call: Call, index: int) -> int:
    operand = call.operand(index)
    return len(operand.axes) if operand is not None and operand.axes is not None else 0


# -- to integers and back ---------------------------------------------------------------------------------------------


def scaled(call: Call) -> list[Axes | None]:
    """Quantise or dequantise: scales for the tensor, along ``axis``, or for blocks along some dimensions."""
    x = call.axes(0)
    for number in (1, 2):
        if call.operand(number) is None:
            continue
        scale = call.axes(number)
        if len(scale) == 1 and scale[0].size != 1 and x:
            call.unify(x[call.attribute("axis", 1) % len(x)], scale[0])
        elif len(scale) == len(x) and len(x) > 1:
            for axis, own in zip(x, scale, strict=True):
                _block(call, axis, own)
    return [x]


def _block(call: Call, axis: Axis, blocks: Axis) -> None:
    """Let ``axis`` be ``blocks`` times positions that stand together."""
    size = divide(axis.size, blocks.size)
    if size == 1:
        call.unify(axis, blocks)
    elif size is None or blocks.size == 1:
        call.pin([axis, blocks], "blocks that do not divide the axis")
    else:
        call.unify(axis, call.space.product([blocks, call.fixed(size, "a block with one scale")]))


def dynamic(call: Call) -> list[Axes | None]:
    """The range is taken over the whole tensor and holds zero, so zeros in removed positions leave it as it is."""
    x = call.axes(0)
    call.mixes.extend(Mix("sum", axis, ((0, dim),)) for dim, axis in enumerate(x))
    results: list[Axes | None] = [x, (), ()]
    return results[: max(len(call.result_sizes), 1)]


bind("onnx.QuantizeLinear", scaled, "x y_scale y_zero_point")
bind("onnx.DequantizeLinear", scaled, "x x_scale x_zero_point")
bind(f"{_DOMAIN}QuantizeLinear", scaled, "x y_scale y_zero_point")
bind(f"{_DOMAIN}DequantizeLinear", scaled, "x x_scale x_zero_point")
bind("onnx.DynamicQuantizeLinear", dynamic, "x")


# -- convolutions and matrix products ---------------------------------------------------------------------------------

_GROUPED = {"g": "group"}
_CONV_MACS = ("n g i o *k *t",)


def quantized_convolution(call: Call) -> list[Axes | None]:
    """A convolution with scales for each output channel; channels first or last."""
    x, w, y = ("n *s (g i)", "(g o) i *k", "n *t (g o)") if call.attribute("channels_last", 0) else (
        "n (g i) *s", "(g o) i *k", "n (g o) *t")  # fmt: skip
    rule = Rule(
        f"{x}, -, -, {w}, (g o)~, (g o)~, -, -, (g o)? -> {y}",
        sizes=_GROUPED,
        sites={"group": "g"},
        macs=_CONV_MACS,
        summed={"i": (0,)},
        neutral={0: 2},
    )
    return rule(call)


CONVOLUTION_INTEGER = Rule(
    "n (g i) *s, (g o) i *k, -?, (g o)~? -> n (g o) *t",
    sizes=_GROUPED,
    sites={"group": "g"},
    macs=_CONV_MACS,
    summed={"i": (0,)},
    neutral={0: 2},
)
bind(f"onnx.QLinearConv {_DOMAIN}QLinearConv", quantized_convolution, "x x_scale x_zero_point w w_scale w_zero_point")
bind("onnx.ConvInteger", CONVOLUTION_INTEGER, "x w x_zero_point w_zero_point")


def _along(call: Call, index: int, name: str, dims: str) -> str:
    """The equation of a scale or zero point: for the tensor, along ``name``, or with all dimensions."""
    rank = _rank(call, index)
    return f"{name}~?" if rank == 1 else f"{dims}?" if rank > 1 else "-?"


def _product(call: Call, a: int, b: int, more: Sequence[str], zero: int) -> list[Axes | None]:
    """A matrix product of operands ``a`` and ``b``; ``more`` are the equations of the others, in order."""
    left, _, right = matmul_text(_rank(call, a), _rank(call, b)).partition(", ")
    right, _, result = right.partition(" -> ")
    terms = list(more)
    terms.insert(a, left)
    terms.insert(b, right)
    rule = Rule(
        f"{', '.join(terms)} -> {result}", macs=("*b m k n",), summed={"k": (a,)}, neutral={a: zero} if zero else {}
    )
    results = rule(call)
    if zero and _rank(call, zero) and any(axis.size != 1 for axis in call.axes(zero)):
        call.pin(call.axes(a)[-1], "a zero point for each row")
    return results


def matmul_integer(call: Call) -> list[Axes | None]:
    """Integers in, integers out."""
    return _product(call, 0, 1, [_along(call, 2, "m", "*b m~ 1"), _along(call, 3, "n", "*b 1 n~")], 2)


def quantized_matmul(call: Call) -> list[Axes | None]:
    """Scales for rows of the left operand and of the result, and for columns of the right one."""
    rows, columns = ("m", "*b m~ 1"), ("n", "*b 1 n~")
    more = [_along(call, index, *(columns if index in (4, 5) else rows)) for index in (1, 2, 4, 5, 6, 7)]
    return _product(call, 0, 3, more, 2)


def matmul_to_float(call: Call) -> list[Axes | None]:
    """Integers in, floats out, with a bias for each column."""
    more = [_along(call, index, name, "-") for index, name in ((2, "m"), (3, "n"), (4, "m"), (5, "n"))]
    return _product(call, 0, 1, [*more, "n?"], 4)


def dynamic_matmul(call: Call) -> list[Axes | None]:
    """The left operand is quantised on the way in, over all its positions: removed ones must be zero there."""
    results = _product(call, 0, 1, [_along(call, 2, "n", "-"), _along(call, 3, "n", "-"), "n?"], 0)
    call.mixes.extend(Mix("sum", axis, ((0, dim),)) for dim, axis in enumerate(call.axes(0)))
    return results


def quantized_gemm(call: Call) -> list[Axes | None]:
    """``alpha * a @ b + c`` of matrices."""
    a = "k m" if call.attribute("transA", 0) else "m k"
    b = "n k" if call.attribute("transB", 0) else "k n"
    bias = ["-", "n~", "m~ n~"][min(_rank(call, 6), 2)]
    text = f"{a}, -, -, {b}, {_along(call, 4, 'n', '-')}, {_along(call, 5, 'n', '-')}, {bias}?, -?, -? -> m n"
    return Rule(text, macs=("m k n",), summed={"k": (0,)}, neutral={0: 2})(call)


bind("onnx.MatMulInteger", matmul_integer, "A B a_zero_point b_zero_point")
bind("onnx.QLinearMatMul", quantized_matmul, "a a_scale a_zero_point b b_scale b_zero_point y_scale y_zero_point")
bind(f"{_DOMAIN}MatMulIntegerToFloat", matmul_to_float, "A B a_scale b_scale a_zero_point b_zero_point bias")
bind(f"{_DOMAIN}DynamicQuantizeMatMul", dynamic_matmul, "A B b_scale b_zero_point bias")
bind(f"{_DOMAIN}QGemm", quantized_gemm, "A a_scale a_zero_point B b_scale b_zero_point C")


# -- point by point, pools, and the rest ------------------------------------------------------------------------------


def _pointwise(call: Call, numbers: Sequence[int]) -> list[Axes | None]:
    """Broadcasting among the operands ``numbers``; the others are scales and zero points of whole tensors."""
    rank = max(_rank(call, number) for number in numbers)
    merged: list[Axis] = [ONE] * rank
    for number in numbers:
        axes = call.axes(number)
        for position, axis in enumerate(axes, rank - len(axes)):
            merged[position] = call.broadcast(merged[position], axis)
    return [tuple(merged)]


def quantized_pair(call: Call) -> list[Axes | None]:
    """Sum or product of two tensors."""
    return _pointwise(call, (0, 3))


def quantized_where(call: Call) -> list[Axes | None]:
    """A choice between two tensors."""
    return _pointwise(call, (0, 1, 4))


def integer_pair(call: Call) -> list[Axes | None]:
    """A product of integers."""
    return _pointwise(call, (0, 1 if call.operand(2) is None else 2))


def quantized_softmax(call: Call) -> list[Axes | None]:
    """Statistics over one axis; for models before opset 13 over all from it on."""
    x = call.axes(0)
    axis = call.attribute("axis", -1) % len(x)
    dims = [axis] if call.attribute("opset", 13) >= 13 else range(axis, len(x))
    call.mixes.extend(Mix("statistics", x[dim], ((0, dim),), ((0, dim),)) for dim in dims)
    return [x]


def quantized_pool(call: Call) -> list[Axes | None]:
    """Windows over space."""
    last = call.attribute("channels_last", 0)
    return Rule("n *s c, -, -, -?, -? -> n *t c" if last else "n c *s, -, -, -?, -? -> n c *t")(call)


def quantized_global_pool(call: Call) -> list[Axes | None]:
    """One value for each channel."""
    x = call.axes(0)
    channel = len(x) - 1 if call.attribute("channels_last", 0) else 1
    call.pin([axis for dim, axis in enumerate(x) if dim not in (0, channel)], "space")
    return [tuple(axis if dim in (0, channel) else ONE for dim, axis in enumerate(x))]


def quantized_concat(call: Call) -> list[Axes | None]:
    """Tensors at every third operand, one after the other along ``axis``."""
    tensors = [operand for operand in call.operands[2::3] if operand is not None]
    inner = Call(call.space, call.node, call.op, list(tensors), call.attributes, call.result_sizes, call.opset)
    call.related.update(range(2, len(call.operands), 3))
    return concat(inner)


bind(f"{_DOMAIN}QLinearAdd {_DOMAIN}QLinearMul", quantized_pair, "A A_scale A_zero_point B B_scale B_zero_point")
bind(f"{_DOMAIN}QLinearWhere", quantized_where, "condition X x_scale x_zero_point Y")
bind(f"{_DOMAIN}MulInteger", integer_pair, "A A_zero_point B")
bind(f"{_DOMAIN}QLinearSigmoid {_DOMAIN}QLinearLeakyRelu", first_only, "X X_scale X_zero_point")
bind(f"{_DOMAIN}QLinearSoftmax", quantized_softmax, "X X_scale x_zero_point")
bind(f"{_DOMAIN}QLinearAveragePool", quantized_pool, "X x_scale x_zero_point")
bind(f"{_DOMAIN}QLinearGlobalAveragePool", quantized_global_pool, "X x_scale x_zero_point")
bind(f"{_DOMAIN}QLinearConcat", quantized_concat, "Y_scale Y_zero_point inputs")
bind(f"{_DOMAIN}QLinearReduceMean", statistic, "data")
bind(f"{_DOMAIN}ReduceSumInteger", sum_reduction, "data")


def dynamic_lstm(call: Call) -> list[Axes | None]:
    """An LSTM that quantises its input and its hidden state on the way, each over all positions.

    Gates that read nothing leave a hidden unit at zero, since ``tanh(0) = 0``, and a zero changes no range.
    """
    directions = call.axes(1)[0].size
    after = call.attribute("activations", ("Sigmoid", "Tanh", "Tanh"))
    still = all(after[at].lower() in ("tanh", "relu") for at in range(len(after)) if at % 3)
    plain = still and (directions == 1 or not any(_nonzero(call, n) for n in (9, 11)))
    h = "h" if plain else "h!"
    scales = ["d! (4 h)" if _rank(call, number) == 2 else "-" for number in (8, 9, 10, 11)]
    rule = Rule(
        f"s! b! i, d! i (4 {h}), d! h (4 h), d! (8 h)?, -?, d! b h?, d! b h?, d! (3 h)?, {', '.join(scales)} "
        "-> s d b h, d b h, d b h",
        sizes={"h": "hidden_size"},
        sites={"hidden_size": "h"},
        macs=("s b d i h 4", "s b d h h 4"),
        summed={"i": (0,), "h": (1, 2, 3, 5, 6, 7)},
        neutral={1: 9, 2: 11} if directions == 1 else {},
        roles={"h": "hidden unit"},
    )
    return rule(call)


def _nonzero(call: Call, index: int) -> bool:
    operand = call.operand(index)
    values = operand.read() if operand is not None else np.zeros(1)
    return values is None or bool(np.any(values))


bind(
    f"{_DOMAIN}DynamicQuantizeLSTM",
    dynamic_lstm,
    "X W R B sequence_lens initial_h initial_c P W_scale W_zero_point R_scale R_zero_point",
)


# -- blocks of 4 or 8 bits --------------------------------------------------------------------------------------------


def matmul_blocks(call: Call) -> list[Axes | None]:
    """``MatMulNBits``: rows ``n`` of blocks of ``block_size`` inputs, each block packed into bytes with one scale.

    Zero points of 4 bits come in pairs, so then pairs of blocks are the units.
    """
    bits, size = int(call.attribute("bits", 4)), int(call.attribute("block_size"))
    rows, inputs = int(call.attribute("N")), int(call.attribute("K"))
    blocks = -(-inputs // size)
    fixed = call.operand(4) is not None or inputs % size or call.attribute("weight_prepacked", 0)
    zeros = call.sizes(3) if call.operand(3) is not None else ()
    packed = -(-blocks * bits // 8)
    if zeros and zeros[-1] in (packed, rows * packed) and bits < 8 and packed != blocks:
        p = f"p{'!' if fixed or blocks % (8 // bits) else ''}"
        unit, z = f"{p} {8 // bits}", p
        if blocks % (8 // bits):
            unit, z = "p!", "z!"
    else:
        unit = z = f"p{'!' if fixed else ''}"
    columns = f"({unit} {size})" if not inputs % size else "c!"
    scales = f"n ({unit})" if _rank(call, 2) > 1 else f"(n {unit})"
    points = f"n {z}" if len(zeros) > 1 else f"(n {z})"
    rule = Rule(
        f"*m {columns}, n ({unit}) w!, {scales}, {points}?, -?, n? -> *m n",
        sizes={"n": "N", "p": blocks // (8 // bits) if " " in unit else blocks, "z": packed},
        sites={"N": "n"},
        macs=(f"*m n {inputs}" if columns == "c!" else f"*m n {unit.replace('!', '')} {size}",),
        summed={"p": (0,)},
    )
    results = rule(call)
    last = call.axes(0)[-1]
    if columns != "c!" and last is not ONE:
        call.site(AttributeTarget("K"), last)
    return results


def gather_blocks(call: Call) -> list[Axes | None]:
    """A look-up in a table quantised in blocks along its last dimension."""
    data, indices, scales = call.axes(0), call.axes(1), call.axes(2)
    gathered = call.attribute("gather_axis", 0) % len(data)
    quantized = call.attribute("quantize_axis", 1) % len(data)
    size = int(call.attribute("block_size", 128))
    if gathered != 0 or quantized != len(data) - 1 or len(data) != 2 or len(scales) != 2:
        raise Declined("blocks along an axis that is not the last")
    call.pin(data[0], "looked up at computed positions")
    call.unify(data[0], scales[0])
    known = call.result()
    width = known[-1] if known else None
    blocks = scales[1]
    stored = divide(data[1].size, blocks.size)
    zeros = call.axes(3) if call.operand(3) is not None else None
    if width is None or stored is None or divide(width, blocks.size) != size:
        call.pin([*data, *scales, *(zeros or ())], "blocks that do not divide the axis")
        return [(*indices, call.fixed(width, "blocks that do not divide the axis"))]
    call.unify(data[1], call.space.product([blocks, call.fixed(stored, "a block with one scale")]))
    if zeros is not None:
        call.unify(zeros[0], scales[0])
        if zeros[1].size == blocks.size:
            call.unify(zeros[1], blocks)
        elif (pair := divide(blocks.size, zeros[1].size)) is not None:
            call.unify(blocks, call.space.product([zeros[1], call.fixed(pair, "zero points packed in one byte")]))
        else:
            call.pin([zeros[1], blocks], "zero points packed in one byte")
    return [(*indices, call.space.product([blocks, call.fixed(size, "a block with one scale")]))]


bind(f"{_DOMAIN}MatMulNBits", matmul_blocks, "A B scales zero_points g_idx bias")
bind(f"{_DOMAIN}GatherBlockQuantized", gather_blocks, "data indices scales zero_points")
