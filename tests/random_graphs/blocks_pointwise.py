"""Normalisations, activations, masks and per-channel constants, on maps [n, c, h, w]."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Value
from random_graphs.tape import MAP, Tape, block

__all__: list[str] = []


@block(MAP)
def batch_norm(t: Tape, x: Value) -> Value:
    if t.chance(0.4):  # statistics that are equal in every layer, which exporters store once
        c = x[1]
        ones, zeros = t.constant(np.ones(c, t.dtype), "ones"), t.constant(np.zeros(c, t.dtype), "zeros")
        x = t.op("BatchNormalization", x, ones, zeros, zeros, ones, shape=x.shape)
    return t.act(t.batch_norm(x))


@block(MAP)
def instance_norm(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or x[2] * x[3] > 1)
    return t.op("InstanceNormalization", x, t.gain(x[1]), t.weight(x[1], name="bias"), shape=x.shape)


@block(MAP, weight=1.5)
def group_norm_views(t: Tape, x: Value) -> Value:
    """Group normalisation as PyTorch exports it: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    groups = t.divisor(x[1])
    ones, zeros = t.constant(np.ones(groups, t.dtype), "ones"), t.constant(np.zeros(groups, t.dtype), "zeros")
    y = t.reshape(x, [0, groups, -1], (x.shape[0], groups, "rest"))
    y = t.op("InstanceNormalization", y, ones, zeros, shape=y.shape)
    y = t.op("Reshape", y, t.op("Shape", x, shape=(4,)), shape=x.shape)
    return t.add(t.mul(y, t.gain(x[1], 1, 1)), t.weight(x[1], 1, 1, scale=0.1))


@block(MAP, weight=3, since=21)
def group_norm(t: Tape, x: Value) -> Value:
    groups = t.divisor(x[1])
    operands = (t.gain(x[1]), t.weight(x[1], name="bias"))
    return t.op("GroupNormalization", x, *operands, shape=x.shape, num_groups=groups)


@block(MAP, weight=2)
def activation(t: Tape, x: Value) -> Value:
    """Any element-wise operator that networks use, alone."""
    kinds = ["Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "Neg", "Abs"]
    kinds += ["clip", "thresholded", "gelu", "mish", "hard_swish", "Sin", "Identity", "square", "cast"]
    kind = t.pick(kinds + (["HardSwish"] if t.opset >= 14 else []) + (["Gelu"] if t.opset >= 20 else []))
    if kind == "clip":
        return t.clip(x, -0.5, 1.5)
    if kind == "thresholded":
        return t.op("ThresholdedRelu", x, alpha=0.2) if t.opset >= 10 else t.relu(x)
    if kind == "gelu":
        return gelu(t, x)
    if kind == "mish":
        return t.mul(x, t.op("Tanh", t.op("Softplus", x)))
    if kind == "hard_swish":
        return t.op("Div", t.mul(x, t.clip(t.add(x, t.scalar(3.0)), 0.0, 6.0)), t.scalar(6.0))
    if kind == "square":
        return t.op("Pow", x, t.scalar(2.0)) if t.chance(0.5) else t.mul(x, x)
    if kind == "cast":
        wide = t.op("Cast", x, to=11)
        return t.op("Cast", t.op("Abs", wide), to=t.elem_type)
    return t.op(kind, x)


def gelu(t: Tape, x: Value) -> Value:
    """Gelu spelled out with Erf or with Tanh."""
    if t.chance(0.6):
        erf = t.op("Erf", t.op("Div", x, t.scalar(2**0.5)))
        return t.mul(t.mul(x, t.add(erf, t.scalar(1.0))), t.scalar(0.5))
    cubic = t.mul(t.mul(x, t.mul(x, x)), t.scalar(0.044715))
    inner = t.op("Tanh", t.mul(t.add(x, cubic), t.scalar(0.79788456)))
    return t.mul(t.mul(t.scalar(0.5), x), t.add(inner, t.scalar(1.0)))


@block(MAP)
def prelu(t: Tape, x: Value) -> Value:
    shape = t.pick([(x[1], 1, 1), (x[1], 1, 1), (1, 1, 1)])
    return t.op("PRelu", x, t.gain(*shape), shape=x.shape)


@block(MAP)
def channel_scale(t: Tape, x: Value) -> Value:
    """Per-channel constants applied by Mul, Add, Sub, Div, on either side."""
    shape = t.pick([(x[1], 1, 1), (1, x[1], 1, 1)])
    for kind in t.choice.sample(["Mul", "Add", "Sub", "Div"], 2):
        constant = t.gain(*shape)
        swapped = kind != "Div" and t.chance(0.5)
        x = t.op(kind, constant, x) if swapped else t.op(kind, x, constant)
    return x


@block(MAP)
def shared_constant(t: Tape, x: Value) -> Value:
    """One vector that scales two layers of the same width, as an exporter's de-duplication leaves it."""
    c = t.pick([6, 8, 12])
    scale = t.gain(c, 1, 1)
    y = t.act(t.mul(t.conv(x, c, 1), scale))
    return t.act(t.add(t.conv(y, c, 3), scale))


@block(MAP)
def channel_where(t: Tape, x: Value) -> Value:
    """Select by a condition: on the values, or a constant one per channel."""
    if t.chance(0.5):
        condition = t.op("Greater", x, t.scalar(0.1))
        return t.op("Where", condition, x, t.mul(x, t.gain(x[1], 1, 1)))
    condition = t.constant(t.rng.random((x[1], 1, 1)) < 0.5, "condition")
    return t.op("Where", condition, x, t.op("Tanh", x))


@block(MAP)
def expand_vector(t: Tape, x: Value) -> Value:
    """Add a pooled vector expanded to the map's own shape."""
    pooled = t.conv(t.global_pool(x), x[1], 1)
    return t.add(x, t.op("Expand", pooled, t.op("Shape", x, shape=(4,)), shape=x.shape))


@block(MAP)
def channel_statistics(t: Tape, x: Value) -> Value:
    """Operators over the channel axis: mean removed, unit norm, softmax over channels."""
    form = t.pick(["center", "norm", "softmax", "cumsum"])
    if form == "center":
        return t.op("Sub", x, t.reduce("ReduceMean", x, 1))
    if form == "norm":
        return t.op("Div", x, t.add(t.reduce("ReduceL2", x, 1), t.scalar(0.5)))
    if form == "cumsum" and t.opset >= (11 if t.dtype == np.float32 else 14):
        return t.op("CumSum", x, t.constant(np.asarray(1, np.int64), "axis"), shape=x.shape)
    if t.opset < 13:
        y = t.transpose(x, 0, 2, 3, 1)
        return t.transpose(t.softmax(y), 0, 3, 1, 2)
    return t.op("Softmax", x, axis=1)


@block(MAP)
def einsum_channels(t: Tape, x: Value) -> Value:
    """A 1x1 convolution written as Einsum, or as one over a grouped view."""
    if t.opset < 12:
        return t.act(t.conv(x, t.width(), 1))
    c = t.width()
    weight = t.weight(c, x[1])
    return t.op("Einsum", x, weight, shape=(x.shape[0], c, *x.shape[2:]), equation="nchw,oc->nohw")


@block(MAP)
def extremes(t: Tape, x: Value) -> Value:
    """Max, Min, Mean or Sum of several branches and a constant."""
    c = x[1]
    kind = t.pick(["Max", "Min", "Mean", "Sum"])
    return t.op(kind, x, t.conv(x, c, 1), t.weight(c, 1, 1, scale=0.5), shape=x.shape)
