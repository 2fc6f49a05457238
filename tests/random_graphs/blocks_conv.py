"""Convolutions, pooling and what stands around them, on maps [n, c, h, w]."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Value, window
from random_graphs.tape import MAP, Tape, block

__all__: list[str] = []


def project(t: Tape, x: Value, y: Value) -> Value:
    """Return ``x`` brought to the channels of ``y`` by a 1x1 convolution where they differ."""
    return x if x.shape[1] == y.shape[1] else t.conv(x, y[1], 1, bias=t.chance(0.5))


@block(MAP, weight=3)
def conv(t: Tape, x: Value) -> Value:
    return t.act(t.conv(x, t.width(), t.pick([3, 3, 5]), bias=t.chance(0.7)))


@block(MAP, weight=2)
def conv_1x1(t: Tape, x: Value) -> Value:
    return t.act(t.conv(x, t.width(), 1, bias=t.chance(0.7)))


@block(MAP)
def conv_strided(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or min(x[2], x[3]) >= 4)
    return t.act(t.conv(x, t.width(), 3, stride=2))


@block(MAP)
def conv_dilated(t: Tape, x: Value) -> Value:
    return t.act(t.conv(x, t.width(), 3, dilation=2))


@block(MAP)
def conv_asymmetric(t: Tape, x: Value) -> Value:
    c = t.width()
    for kernel, pads in (([1, 3], [0, 1, 0, 1]), ([3, 1], [1, 0, 1, 0])):
        weight = t.weight(c, x[1], *kernel)
        x = t.op("Conv", x, weight, shape=(x.shape[0], c, *x.shape[2:]), kernel_shape=kernel, pads=pads)
    return t.act(x)


@block(MAP, weight=2)
def conv_grouped(t: Tape, x: Value) -> Value:
    groups = t.divisor(x[1], high=x[1] - 1)
    return t.act(t.conv(x, groups * t.pick([1, 2, 3, 4]), 3, groups=groups))


@block(MAP, weight=2)
def conv_depthwise(t: Tape, x: Value) -> Value:
    t.need(x[1] <= 32)
    return t.act(t.conv(x, x[1] * t.pick([1, 1, 1, 2]), 3, groups=x[1], bias=t.chance(0.5)))


@block(MAP, weight=2)
def conv_separable(t: Tape, x: Value) -> Value:
    x = t.batch_norm(t.conv(x, x[1], 3, groups=x[1], bias=False))
    return t.act(t.batch_norm(t.conv(x, t.width(), 1, bias=False)))


@block(MAP)
def inverted_residual(t: Tape, x: Value) -> Value:
    hidden = x[1] * 2
    t.need(hidden <= 48)
    y = t.clip(t.batch_norm(t.conv(x, hidden, 1, bias=False)), 0.0, 6.0)
    y = t.clip(t.batch_norm(t.conv(y, hidden, 3, groups=hidden, bias=False)), 0.0, 6.0)
    return t.add(x, t.batch_norm(t.conv(y, x[1], 1, bias=False)))


@block(MAP)
def bottleneck(t: Tape, x: Value) -> Value:
    y = t.relu(t.batch_norm(t.conv(x, max(2, x[1] // 2), 1, bias=False)))
    y = t.relu(t.batch_norm(t.conv(y, y[1], 3, bias=False)))
    y = t.batch_norm(t.conv(y, t.pick([x[1], t.width()]), 1, bias=False))
    return t.relu(t.add(y, project(t, x, y)))


@block(MAP, weight=1.5)
def conv_transposed(t: Tape, x: Value) -> Value:
    t.need(x[1] <= 32 and (not t.static(x, 2, 3) or x[2] * x[3] <= 64))
    kernel, stride, padding = t.pick([(2, 2, 0), (3, 1, 1), (4, 2, 1)])
    groups = t.pick([1, 1, 1, x[1]]) if x[1] % 2 else t.pick([1, 1, 2, x[1]])
    out = groups * t.pick([1, 2, 3]) if groups > 1 else t.width()
    weight = t.weight(x[1], out // groups, kernel, kernel, scale=(2 * groups / x[1]) ** 0.5 / kernel)
    spatial = [size * stride if isinstance(size, int) else f"{size}_t{kernel}{stride}" for size in x.shape[2:]]
    return t.op(
        "ConvTranspose",
        x,
        weight,
        t.weight(out, name="bias") if t.chance(0.5) else None,
        shape=(x.shape[0], out, *spatial),
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[padding] * 4,
        group=groups,
    )


@block(MAP)
def max_pool(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or min(x[2], x[3]) >= 4)
    return t.pool("MaxPool", x, *t.pick([(2, 2, 0), (3, 2, 1), (3, 1, 1)]))


@block(MAP)
def average_pool(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or min(x[2], x[3]) >= 4)
    return t.pool("AveragePool", x, *t.pick([(2, 2, 0), (3, 2, 1), (3, 1, 1)]))


@block(MAP, weight=2)
def squeeze_excite(t: Tape, x: Value) -> Value:
    c = x[1]
    form = t.pick(["conv", "mean", "gemm"])
    if form == "gemm":
        pooled = t.op("Flatten", t.global_pool(x), shape=(x.shape[0], c), axis=1)
        gate = t.op("Sigmoid", t.gemm(t.relu(t.gemm(pooled, max(2, c // 2))), c))
        gate = t.unsqueeze(t.unsqueeze(gate, 2), 3) if t.chance(0.5) else t.reshape_to(gate, (x.shape[0], c, 1, 1))
        return t.mul(x, gate)
    pooled = t.global_pool(x) if form == "conv" else t.reduce("ReduceMean", x, 2, 3)
    gate = t.conv(t.relu(t.conv(pooled, max(2, c // 2), 1)), c, 1)
    gate = t.op("HardSigmoid", gate, alpha=1 / 6, beta=0.5) if t.chance(0.5) else t.op("Sigmoid", gate)
    return t.mul(gate, x)


@block(MAP)
def spatial_gate(t: Tape, x: Value) -> Value:
    pooled = t.concat([t.reduce("ReduceMean", x, 1), t.reduce("ReduceMax", x, 1)], 1)
    return t.mul(x, t.op("Sigmoid", t.conv(pooled, 1, 3)))


@block(MAP, weight=1.5)
def dense_block(t: Tape, x: Value) -> Value:
    t.need(x[1] <= 24)
    features = [x]
    for _ in range(t.pick([2, 3])):
        y = t.concat(features, 1) if len(features) > 1 else x
        features.append(t.conv(t.relu(t.batch_norm(y)), 4, 3, bias=False))
    return t.concat(features, 1)


@block(MAP, weight=1.5)
def inception(t: Tape, x: Value) -> Value:
    branches = [
        t.relu(t.conv(x, t.pick([4, 6]), 1)),
        t.relu(t.conv(t.relu(t.conv(x, 4, 1)), t.pick([4, 8]), 3)),
        t.relu(t.conv(t.pool("MaxPool", x, 3, 1, 1), t.pick([2, 4]), 1)),
    ]
    return t.concat(branches + ([x] if t.chance(0.3) and x[1] <= 16 else []), 1)


@block(MAP)
def tied_convs(t: Tape, x: Value) -> Value:
    weight = t.weight(x[1], x[1], 3, 3)
    y = t.act(t.conv(x, x[1], 3, weight=weight))
    z = t.conv(y, x[1], 3, weight=weight)
    return t.concat([y, z], 1) if t.chance(0.3) and x[1] <= 24 else t.act(z)


@block(MAP)
def tied_heads(t: Tape, x: Value) -> Value:
    """One head applied to two levels, as detectors share theirs; the levels' channels couple through its weight."""
    c = t.width()
    a, b = t.relu(t.conv(x, c, 3)), t.relu(t.conv(x, c, 1))
    weight = t.weight(t.pick([6, 8]), c, 1, 1)
    heads = [t.conv(level, weight[0], 1, weight=weight) for level in (a, b)]
    return t.add(*heads) if t.chance(0.5) else t.concat(heads, 1)


@block(MAP)
def local_response(t: Tape, x: Value) -> Value:
    return t.op("LRN", x, size=3, alpha=0.1, beta=0.5)


@block(MAP)
def resize(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or x[2] * x[3] <= 64)
    shape = (*x.shape[:2], *(size * 2 if isinstance(size, int) else f"2{size}" for size in x.shape[2:]))
    scales = t.constant(np.float32([1, 1, 2, 2]), "scales")
    mode = t.pick(["nearest", "linear"])
    if t.opset < 11:
        return t.op("Upsample" if t.opset == 9 else "Resize", x, scales, shape=shape, mode=mode)
    options = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        options["nearest_mode"] = "floor"
    roi = t.constant(np.float32([]), "roi") if t.opset < 13 else None
    if t.chance(0.5) and t.static(x, 2, 3):
        lead = t.slice(t.op("Shape", x, shape=(4,)), 0, 0, 2)
        sizes = t.concat([lead, t.ints(x[2] * 2, x[3] * 2)], 0)
        empty = t.constant(np.float32([]), "scales") if t.opset < 13 else None
        return t.op("Resize", x, roi, empty, sizes, shape=shape, **options)
    return t.op("Resize", x, roi, scales, shape=shape, **options)


@block(MAP)
def conv_fixed_pads(t: Tape, x: Value) -> Value:
    """A strided convolution padded by auto_pad, as TensorFlow exports it."""
    t.need(t.static(x, 2, 3) and min(x[2], x[3]) >= 4)
    c = t.width()
    shape = (x.shape[0], c, (x[2] + 1) // 2, (x[3] + 1) // 2)
    weight = t.weight(c, x[1], 3, 3)
    assert window(x[2], 3, 2, 1) == shape[2]
    return t.op("Conv", x, weight, shape=shape, strides=[2, 2], auto_pad="SAME_UPPER", kernel_shape=[3, 3])
