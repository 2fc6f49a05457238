"""Movement of channels: concat, split, slice, reshape, transpose, shuffles, gather, pad; on maps [n, c, h, w]."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from graphprune.models.reference.builder import Dim, Shape, Value
from random_graphs.tape import MAP, Tape, block

__all__: list[str] = []


def split_equal(t: Tape, x: Value, parts: int, axis: int) -> list[Value]:
    """Split into equal parts: by the form without sizes, by num_outputs, or by explicit sizes."""
    axis %= len(x.shape)
    size = x[axis] // parts
    shapes: list[Shape] = [(*x.shape[:axis], size, *x.shape[axis + 1 :])] * parts
    if t.chance(0.5):
        return t.ops("Split", x, shapes=shapes, axis=axis, num_outputs=parts if t.opset >= 18 else None)
    return t.split(x, [size] * parts, axis)


def split_any(t: Tape, x: Value, axis: int) -> list[Value]:
    """Split into two or three unequal parts, by Split or by Slices."""
    axis %= len(x.shape)
    t.need(x[axis] >= 4)
    cut = t.choice.randrange(1, x[axis] - 1)
    sizes = [cut, x[axis] - cut]
    if t.chance(0.3):
        sizes = [cut, 1, x[axis] - cut - 1]
    if t.chance(0.5):
        return t.split(x, sizes, axis)
    starts = np.cumsum([0, *sizes]).tolist()
    return [t.slice(x, axis, a, b) for a, b in pairwise(starts)]


def shuffle(t: Tape, x: Value, groups: int) -> Value:
    """Shuffle the channels of a map between ``groups`` groups."""
    n, c, h, w = x.shape
    per = x[1] // groups
    y = t.transpose(t.reshape_to(x, (n, groups, per, h, w)), 0, 2, 1, 3, 4)
    return t.reshape_to(y, (n, c, h, w), x)


@block(MAP, weight=1.5)
def channel_shuffle(t: Tape, x: Value) -> Value:
    y = shuffle(t, x, t.divisor(x[1], high=x[1] - 1))
    return t.act(t.conv(y, t.width(), 1)) if t.chance(0.5) else y


@block(MAP)
def channel_shuffle_repeated(t: Tape, x: Value) -> Value:
    for _ in range(t.pick([2, 3])):
        x = shuffle(t, x, t.divisor(x[1], high=x[1] - 1))
        if t.chance(0.4) and x[1] <= 32:
            x = t.conv(x, x[1], 3, groups=x[1])
    return x


@block(MAP, weight=1.5)
def shuffle_unit(t: Tape, x: Value) -> Value:
    """ShuffleNetV2's unit: one half passes, the other is transformed, both are shuffled together."""
    t.need(x[1] % 2 == 0 and x[1] <= 32)
    a, b = split_equal(t, x, 2, 1)
    b = t.relu(t.conv(b, b[1], 1))
    b = t.relu(t.conv(t.conv(b, b[1], 3, groups=b[1]), b[1], 1))
    return shuffle(t, t.concat([a, b], 1), 2)


@block(MAP, weight=1.5)
def pixel_shuffle(t: Tape, x: Value) -> Value:
    """Depth to space by the operator (both modes) or by Reshape, Transpose, Reshape."""
    t.need(not t.static(x, 2, 3) or x[2] * x[3] <= 64)
    if x[1] % 4 or t.chance(0.5):
        x = t.conv(x, 4 * t.pick([2, 3, 4]), 3)
    n, _, h, w = x.shape
    big = [size * 2 if isinstance(size, int) else f"2{size}" for size in (h, w)]
    shape = (n, x[1] // 4, *big)
    form = t.pick(["op", "reshape", "reshape"]) if t.static(x, 2, 3) else "op"
    if form == "op":
        mode = t.pick(["DCR", "CRD"]) if t.opset >= 11 else None
        return t.op("DepthToSpace", x, shape=shape, blocksize=2, mode=mode)
    y = t.reshape_to(x, (n, x[1] // 4, 2, 2, h, w))
    return t.reshape_to(t.transpose(y, 0, 1, 4, 2, 5, 3), shape, x)


@block(MAP, weight=1.5)
def space_to_depth(t: Tape, x: Value) -> Value:
    """Space to depth by the operator, by strided slices (YOLO's focus), or by Reshape, Transpose, Reshape."""
    t.need(t.static(x, 2, 3) and x[2] % 2 == 0 and x[3] % 2 == 0 and x[1] <= 12 and min(x[2], x[3]) >= 4)
    n, h, w = x.shape[0], x[2] // 2, x[3] // 2
    form = t.pick(["op", "slices", "reshape"])
    if form == "op" or (form == "slices" and t.opset < 10):
        y = t.op("SpaceToDepth", x, shape=(n, x[1] * 4, h, w), blocksize=2)
    elif form == "slices":
        rows = [t.slice(x, 2, start, 2**31 - 1, 2) for start in (0, 1)]
        y = t.concat([t.slice(row, 3, start, 2**31 - 1, 2) for start in (0, 1) for row in rows], 1)
    else:
        y = t.transpose(t.reshape_to(x, (n, x[1], h, 2, w, 2)), 0, 1, 3, 5, 2, 4)
        y = t.reshape_to(y, (n, x[1] * 4, h, w), x)
    return t.act(t.conv(y, t.width(), t.pick([1, 3])))


@block(MAP, weight=1.5)
def slice_channels(t: Tape, x: Value) -> Value:
    c = x[1]
    t.need(c >= 6)
    if t.opset < 10:
        return t.slice(x, 1, *t.pick([(0, c - 2), (2, c), (1, 2**31 - 1), (-4, c), (0, -2)]))
    start, stop, step = t.pick(
        [(0, c - 2, 1), (2, c, 1), (-4, c, 1), (0, -2, 1), (0, c, 2), (1, c, 2), (-1, -(2**31), -1), (c, 0, -2)]
    )
    return t.slice(x, 1, start, stop, step)


@block(MAP)
def gather_channels(t: Tape, x: Value) -> Value:
    """Gather constant channels: a permutation, a selection, one with repeats, one counted from the end."""
    c = x[1]
    form = t.pick(["permute", "select", "repeat", "negative"])
    if form == "permute":
        indices = t.rng.permutation(c)
    elif form == "select":
        indices = np.sort(t.rng.permutation(c)[: max(2, c // 2)])
    elif form == "repeat":
        indices = t.rng.integers(0, c, c)
    else:
        indices = -1 - t.rng.permutation(c)
    kind = t.pick([np.int64, np.int32])
    return t.gather(x, t.constant(indices.astype(kind), "indices"), 1)


@block(MAP, weight=1.5)
def split_process_concat(t: Tape, x: Value) -> Value:
    """YOLO's C2f: split, transform one part repeatedly, concatenate every stage."""
    t.need(x[1] % 2 == 0 and x[1] <= 24)
    a, b = split_equal(t, t.act(t.conv(x, x[1], 1)), 2, 1)
    stages = [a, b]
    for _ in range(t.pick([1, 2])):
        y = t.act(t.conv(stages[-1], b[1], 3))
        stages.append(t.add(y, stages[-1]) if t.chance(0.6) else y)
    return t.act(t.conv(t.concat(stages, 1), t.width(), 1))


@block(MAP, weight=1.5)
def split_gate(t: Tape, x: Value) -> Value:
    """A gated linear unit over channels."""
    t.need(x[1] % 2 == 0 and x[1] >= 4)
    a, b = split_equal(t, x, 2, 1)
    return t.mul(a, t.op("Sigmoid", b))


@block(MAP)
def split_rotate(t: Tape, x: Value) -> Value:
    """Split unequally, transform one part, put the parts back in another order."""
    parts = split_any(t, x, 1)
    index = t.choice.randrange(len(parts))
    parts[index] = t.act(parts[index])
    t.choice.shuffle(parts)
    return t.concat(parts, 1)


@block(MAP)
def split_drop(t: Tape, x: Value) -> Value:
    """Use only some of a Split's outputs, each by a layer of its own, then sum."""
    c = t.width()
    parts = split_any(t, x, 1)
    kept = parts[:-1] if t.chance(0.5) else parts
    return t.op("Sum", *[t.conv(part, c, 1) for part in kept], shape=(x.shape[0], c, *x.shape[2:]))


@block(MAP)
def concat_self(t: Tape, x: Value) -> Value:
    t.need(x[1] <= 16)
    return t.concat([x, t.op("Neg", x)] if t.chance(0.5) else [x, x], 1)


@block(MAP)
def concat_constant(t: Tape, x: Value) -> Value:
    """Append constant channels, as coordinate channels are."""
    t.need(t.static(x, 0, 2, 3))
    return t.concat([x, t.weight(x[0], 2, x[2], x[3], scale=1.0)], 1)


@block(MAP)
def pad_channels(t: Tape, x: Value) -> Value:
    """Zero channels before and after, as ResNet's parameter-free shortcut has; sometimes crops instead."""
    before, after = t.pick([(2, 2), (0, 4), (3, 0)] + ([(-1, 0), (1, -2)] if x[1] >= 6 else []))
    pads = [0, before, 0, 0, 0, after, 0, 0]
    shape = (x.shape[0], x[1] + before + after, *x.shape[2:])
    if t.opset < 11:
        return t.op("Pad", x, shape=shape, pads=pads, mode="constant", value=0.0)
    return t.op("Pad", x, t.ints(*pads), t.scalar(t.pick([0.0, 0.5])), shape=shape)


@block(MAP)
def pad_space(t: Tape, x: Value) -> Value:
    t.need(not t.static(x, 2, 3) or 2 <= min(x[2], x[3]) <= 10)
    mode = t.pick(["constant", "reflect", "edge"])
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    shape = (*x.shape[:2], *(size + 2 if isinstance(size, int) else f"{size}p" for size in x.shape[2:]))
    if t.opset < 11:
        y = t.op("Pad", x, shape=shape, pads=pads, mode=mode)
    else:
        y = t.op("Pad", x, t.ints(*pads), shape=shape, mode=mode)
    return t.conv(y, t.width(), 3, padding=0)


@block(MAP)
def pad_shortcut(t: Tape, x: Value) -> Value:
    """A residual whose shortcut is strided and zero-padded in channels (ResNet's option A)."""
    t.need(t.static(x, 2, 3) and min(x[2], x[3]) >= 4 and x[1] <= 16 and t.opset >= 10)
    y = t.conv(x, x[1] + 4, 3, stride=2)
    short = t.slice(t.slice(x, 2, 0, 2**31 - 1, 2), 3, 0, 2**31 - 1, 2)
    pads = [0, 2, 0, 0, 0, 2, 0, 0]
    if t.opset < 11:
        short = t.op("Pad", short, shape=y.shape, pads=pads)
    else:
        short = t.op("Pad", short, t.ints(*pads), shape=y.shape)
    return t.relu(t.add(y, short))


@block(MAP)
def channels_last(t: Tape, x: Value) -> Value:
    """A linear layer over channels between two transposes."""
    y = t.transpose(x, 0, 2, 3, 1)
    y = t.dense(t.act(t.dense(y, x[1] + 2)), t.width())
    return t.transpose(y, 0, 3, 1, 2)


@block(MAP)
def grouped_view(t: Tape, x: Value) -> Value:
    """View channels as groups, scale each group or reduce over groups, go back."""
    n, c, h, w = x.shape
    groups = t.divisor(x[1], high=x[1] - 1)
    y = t.reshape_to(x, (n, groups, x[1] // groups, h, w))
    form = t.pick(["scale", "sum", "max"])
    if form == "scale":
        return t.reshape_to(t.mul(y, t.gain(groups, 1, 1, 1)), (n, c, h, w), x)
    if form == "sum":
        return t.reduce("ReduceSum", y, t.pick([1, 2]), keepdims=False)
    return t.reduce("ReduceMax", y, t.pick([1, 2]), keepdims=False)


@block(MAP)
def selective_kernel(t: Tape, x: Value) -> Value:
    """Two branches weighed per channel by a softmax across the branches (SKNet)."""
    c = t.width()
    a, b = t.relu(t.conv(x, c, 3)), t.relu(t.conv(x, c, 5))
    pooled = t.op("Flatten", t.global_pool(t.add(a, b)), shape=(x.shape[0], c), axis=1)
    logits = t.reshape_to(t.gemm(pooled, 2 * c), (x.shape[0], 2, c))
    weights = t.transpose(t.softmax(t.transpose(logits, 0, 2, 1)), 0, 2, 1)
    gates = [t.reshape_to(part, (x.shape[0], c, 1, 1), x) for part in t.split(weights, [1, 1], 1)]
    return t.add(t.mul(a, gates[0]), t.mul(b, gates[1]))


@block(MAP)
def stack_reduce(t: Tape, x: Value) -> Value:
    """Stack two branches on a new axis and reduce over it."""
    c = t.width()
    branches = [t.unsqueeze(t.conv(x, c, kernel), 1) for kernel in (1, 3)]
    stacked = t.concat(branches, 1)
    return t.reduce(t.pick(["ReduceMax", "ReduceSum", "ReduceMean"]), stacked, 1, keepdims=False)


def flat(x: Value) -> Dim:
    """Return the product of the spatial sizes, symbolic where one of them is."""
    h, w = x.shape[2:]
    return h * w if isinstance(h, int) and isinstance(w, int) else f"{h}*{w}"
