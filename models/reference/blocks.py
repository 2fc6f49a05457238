"""Blocks that several reference networks share."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import GraphBuilder, Shape, Value

__all__ = ["classifier", "conv_bn", "gelu", "index", "layer_norm", "merge_heads", "rms_norm", "silu", "split_heads"]


def conv_bn(
    b: GraphBuilder,
    x: Value,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: str | None = "Relu",
) -> Value:
    """Convolve without bias, normalise by stored statistics, and apply ``activation`` (an operator, or None)."""
    y = b.batch_norm(b.conv(x, out, kernel, stride=stride, groups=groups, bias=False))
    if activation == "silu":
        return silu(b, y)
    if activation == "relu6":
        return b.clip(y, 0.0, 6.0)
    return b.op(activation, y) if activation else y


def silu(b: GraphBuilder, x: Value) -> Value:
    """Return ``x * sigmoid(x)``."""
    return b.mul(x, b.op("Sigmoid", x))


def gelu(b: GraphBuilder, x: Value) -> Value:
    """Return Gelu, spelled out with Erf as PyTorch exports it before opset 20."""
    erf = b.op("Erf", b.op("Div", x, b.scalar(2**0.5)))
    return b.mul(b.mul(x, b.add(erf, b.scalar(1.0))), b.scalar(0.5))


def classifier(b: GraphBuilder, x: Value, classes: int) -> Value:
    """Pool over space, flatten, and apply one linear layer."""
    pooled = b.op("Flatten", b.global_pool(x), shape=(x.shape[0], x[1]), axis=1)
    return b.gemm(pooled, classes)


def layer_norm(b: GraphBuilder, x: Value) -> Value:
    """Normalise over the last axis."""
    gain, bias = b.gain(x[-1]), b.weight(x[-1], name="bias")
    return b.op("LayerNormalization", x, gain, bias, shape=x.shape, axis=-1, epsilon=1e-5)


def rms_norm(b: GraphBuilder, x: Value) -> Value:
    """Divide by the root mean square over the last axis, spelled out as Llama's exports are."""
    mean = b.reduce("ReduceMean", b.op("Pow", x, b.scalar(2.0)), -1)
    root = b.op("Sqrt", b.add(mean, b.scalar(1e-5)))
    return b.mul(b.gain(x[-1]), b.mul(x, b.op("Reciprocal", root)))


def index(b: GraphBuilder, value: int) -> Value:
    """Return a rank-zero int64 constant."""
    return b.constant(np.asarray(value, np.int64), "index")


def split_heads(b: GraphBuilder, x: Value, heads: int) -> Value:
    """Bring [n, t, h*d] to [n, h, t, d]."""
    n, length, _ = x.shape
    shape: Shape = (n, length, heads, x[2] // heads)
    return b.transpose(b.reshape(x, [0, 0, heads, x[2] // heads], shape), 0, 2, 1, 3)


def merge_heads(b: GraphBuilder, x: Value) -> Value:
    """Bring [n, h, t, d] back to [n, t, h*d]."""
    n, _, length, _ = x.shape
    return b.reshape(b.transpose(x, 0, 2, 1, 3), [0, 0, x[1] * x[3]], (n, length, x[1] * x[3]))
