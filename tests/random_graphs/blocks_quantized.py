"""Quantised layers: QDQ around float operators, QLinear operators, integer products, packed four-bit weights."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from graphprune.models.reference.builder import Array, Value
from random_graphs.blocks_contrib import DOMAIN, single
from random_graphs.tape import MAP, TOKENS, Tape, block

__all__: list[str] = []


def quantized(t: Tape, shape: tuple[int, ...], axis: int | None) -> tuple[Array, Array]:
    """Return an int8 weight and its scale: one for all, or one for each position of ``axis``."""
    values = t.rng.integers(-127, 128, shape).astype(np.int8)
    fan_in = np.prod(shape) / shape[0 if axis is None else axis]
    size = () if axis is None else (shape[axis],)
    return values, (t.rng.uniform(0.5, 1.5, size) * (1.5 / fan_in) ** 0.5 / 64).astype(np.float32)


def requantize(t: Tape, x: Value) -> Value:
    """Quantise to uint8 and back, one scale for all."""
    scale, zero = t.constant(np.asarray(0.05, np.float32), "scale"), t.constant(np.asarray(120, np.uint8), "zero")
    y = t.op("QuantizeLinear", x, scale, zero, shape=x.shape)
    return t.op("DequantizeLinear", y, scale, zero, shape=x.shape)


@block(MAP, weight=1.5, since=13)
def conv_dequantized(t: Tape, x: Value) -> Value:
    """A convolution between quantised activations, its int8 weight dequantised per tensor or per channel."""
    single(t)
    c, axis = t.width(), t.pick([None, 0])
    values, scales = quantized(t, (c, x[1], 3, 3), axis)
    scale = t.constant(scales, "scale")
    zero = t.constant(np.zeros(scales.shape, np.int8), "zero") if t.chance(0.6) else None
    weight = t.op("DequantizeLinear", t.constant(values, "weight"), scale, zero, shape=values.shape, axis=axis)
    y = t.conv(requantize(t, x), c, 3, weight=weight)
    return requantize(t, t.relu(y))


@block(TOKENS, weight=1.5, since=13)
def linear_dequantized(t: Tape, x: Value) -> Value:
    """A linear layer whose int8 weight is dequantised per tensor, per input or per output channel."""
    single(t)
    c, axis = t.width(), t.pick([None, 0, 1])
    values, scales = quantized(t, (x[2], c), axis)
    if axis != 1:
        scales = (scales * (c / x[2]) ** 0.5).astype(np.float32)
    weight = t.op(
        "DequantizeLinear", t.constant(values, "weight"), t.constant(scales, "scale"), shape=values.shape, axis=axis
    )
    return t.act(t.linear(x, c, weight=weight))


@block(TOKENS, weight=4, since=21)
def linear_blocked(t: Tape, x: Value) -> Value:
    """A linear layer whose int4 weight has a scale for each block of input channels."""
    single(t)
    block_size = t.divisor(x[2], high=4)
    c = t.width()
    values = t.rng.integers(-8, 8, (x[2], c)).astype(np.int8)
    full = t.fresh("weight")
    t.initializers.append(helper.make_tensor(full, TensorProto.INT4, values.shape, values.flatten()))
    scales = t.rng.uniform(0.5, 1.5, (x[2] // block_size, c)) * x[2] ** -0.5 / 4
    weight = t.op(
        "DequantizeLinear",
        Value(full, values.shape),
        t.constant(scales.astype(np.float32), "scale"),
        shape=values.shape,
        axis=0,
        block_size=block_size,
    )
    return t.act(t.linear(x, c, weight=weight))


@block(MAP, since=10)
def conv_qlinear(t: Tape, x: Value) -> Value:
    """QuantizeLinear, QLinearConv, DequantizeLinear."""
    single(t)
    c, axis = t.width(), t.pick([None, 0])
    values, scales = quantized(t, (c, x[1], 1, 1), axis)
    scale, zero = t.constant(np.asarray(0.05, np.float32), "scale"), t.constant(np.asarray(128, np.uint8), "zero")
    y = t.op("QuantizeLinear", x, scale, zero, shape=x.shape)
    bias = t.constant(t.rng.integers(-40, 40, c).astype(np.int32), "bias") if t.chance(0.5) else None
    weight_zero = t.constant(np.zeros(scales.shape, np.int8), "zero")
    weight = (t.constant(values, "weight"), t.constant(scales, "scale"), weight_zero)
    y = t.op("QLinearConv", y, scale, zero, *weight, scale, zero, bias, shape=(x.shape[0], c, *x.shape[2:]))
    return t.op("DequantizeLinear", y, scale, zero, shape=y.shape)


@block(TOKENS, since=10)
def matmul_qlinear(t: Tape, x: Value) -> Value:
    """QuantizeLinear, QLinearMatMul, DequantizeLinear."""
    single(t)
    c = t.width()
    values, scales = quantized(t, (x[2], c), None)
    scale, zero = t.constant(np.asarray(0.05, np.float32), "scale"), t.constant(np.asarray(128, np.uint8), "zero")
    y = t.op("QuantizeLinear", x, scale, zero, shape=x.shape)
    weight_zero = t.constant(np.asarray(0, np.int8), "zero")
    weight = (t.constant(values, "weight"), t.constant(scales, "scale"), weight_zero)
    y = t.op("QLinearMatMul", y, scale, zero, *weight, scale, zero, shape=(*x.shape[:2], c))
    return t.op("DequantizeLinear", y, scale, zero, shape=y.shape)


@block(TOKENS, since=11)
def matmul_integer(t: Tape, x: Value) -> Value:
    """DynamicQuantizeLinear, MatMulInteger, and the scales multiplied back."""
    single(t)
    c = t.width()
    values, scales = quantized(t, (x[2], c), 1)
    y, scale, zero = t.ops("DynamicQuantizeLinear", x, shapes=[x.shape, (), ()])
    product = t.op("MatMulInteger", y, t.constant(values, "weight"), zero, shape=(*x.shape[:2], c))
    product = t.op("Cast", product, to=t.elem_type)
    factor = t.mul(scale, t.constant((scales * (c / x[2]) ** 0.5).astype(np.float32), "scale"))
    return t.act(t.add(t.mul(product, factor), t.weight(c, name="bias")))


@block(TOKENS, weight=1.5)
def matmul_four_bits(t: Tape, x: Value) -> Value:
    """MatMulNBits: weights packed two to a byte, in blocks of sixteen input channels."""
    single(t)
    c, size = t.width(), 16
    blocks = -(-x[2] // size)
    packed = t.rng.integers(0, 256, (c, blocks, size // 2)).astype(np.uint8)
    scales = (t.rng.uniform(0.5, 1.5, c * blocks) * x[2] ** -0.5 / 4).astype(np.float32)
    return t.op(
        "MatMulNBits",
        *(x, t.constant(packed, "weight"), t.constant(scales, "scale")),
        shape=(*x.shape[:2], c),
        domain=DOMAIN,
        K=x[2],
        N=c,
        bits=4,
        block_size=size,
    )
