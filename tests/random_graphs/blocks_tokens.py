"""Feed-forward layers, normalisations, recurrences and mixing on tokens [n, t, c]."""

from __future__ import annotations

import math

import numpy as np
from onnx import numpy_helper

from graphprune.models.reference.builder import Value
from random_graphs.blocks_movement import split_any, split_equal
from random_graphs.blocks_pointwise import gelu
from random_graphs.tape import LONGEST, TOKENS, Tape, block

__all__: list[str] = []


@block(TOKENS, weight=2)
def linear(t: Tape, x: Value) -> Value:
    return t.act(t.dense(x, t.width()))


@block(TOKENS, weight=2)
def feed_forward(t: Tape, x: Value) -> Value:
    hidden = t.dense(x, t.pick([12, 16, 20]))
    return t.add(x, t.dense(gelu(t, hidden) if t.chance(0.6) else t.act(hidden), x[2]))


@block(TOKENS, weight=2)
def swiglu(t: Tape, x: Value) -> Value:
    """Gated feed-forward: two projections, or one that is split or sliced in halves."""
    hidden = t.pick([6, 8, 12])
    form = t.pick(["separate", "split", "slice"])
    if form == "separate":
        gate, up = t.dense(x, hidden, bias=False), t.dense(x, hidden, bias=False)
    elif form == "split":
        gate, up = split_equal(t, t.dense(x, 2 * hidden), 2, 2)
    else:
        both = t.dense(x, 2 * hidden)
        gate, up = (t.slice(both, 2, i * hidden, (i + 1) * hidden) for i in (0, 1))
    y = t.mul(t.mul(gate, t.op("Sigmoid", gate)), up)
    return t.add(x, t.dense(y, x[2], bias=False))


@block(TOKENS, weight=2)
def layer_norm(t: Tape, x: Value) -> Value:
    """Layer normalisation as the operator, or spelled out."""
    gain, bias = t.gain(x[2]), t.weight(x[2], name="bias")
    if t.opset >= 17 and t.chance(0.6):
        return t.op("LayerNormalization", x, gain, bias if t.chance(0.7) else None, shape=x.shape, axis=-1)
    centred = t.op("Sub", x, t.reduce("ReduceMean", x, -1))
    square = t.op("Pow", centred, t.scalar(2.0)) if t.chance(0.5) else t.mul(centred, centred)
    deviation = t.op("Sqrt", t.add(t.reduce("ReduceMean", square, -1), t.scalar(1e-3)))
    return t.add(t.mul(t.op("Div", centred, deviation), gain), bias)


@block(TOKENS, weight=1.5)
def rms_norm(t: Tape, x: Value) -> Value:
    mean = t.reduce("ReduceMean", t.mul(x, x), -1)
    root = t.op("Sqrt", t.add(mean, t.scalar(1e-3)))
    y = t.op("Div", x, root) if t.chance(0.5) else t.mul(x, t.op("Reciprocal", root))
    return t.mul(t.gain(x[2]), y)


@block(TOKENS, weight=2)
def recurrent(t: Tape, x: Value) -> Value:
    """LSTM, GRU or RNN over time, in one direction or both."""
    kind = t.pick(["LSTM", "GRU", "RNN"])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    direction = t.pick(["forward", "reverse", "bidirectional", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    hidden = t.pick([4, 6])
    n, length, _ = x.shape
    operands: list[Value | None] = [
        t.weight(ways, gates * hidden, x[2], scale=1 / math.sqrt(x[2])),
        t.weight(ways, gates * hidden, hidden, scale=1 / math.sqrt(hidden)),
        t.weight(ways, 2 * gates * hidden, scale=0.2, name="bias") if t.chance(0.8) else None,
    ]
    if t.chance(0.5):
        state = initial_state(t, x, ways, hidden)
        operands += [None, state] + ([initial_state(t, x, ways, hidden)] if kind == "LSTM" else [])
    options = {"linear_before_reset": t.pick([0, 1])} if kind == "GRU" else {}
    y = t.op(
        kind,
        t.transpose(x, 1, 0, 2),
        *operands,
        shape=(length, ways, n, hidden),
        hidden_size=hidden,
        direction=direction,
        **options,
    )
    if ways == 1:
        return t.transpose(t.squeeze(y, 1), 1, 0, 2)
    return t.transpose(t.reshape_to(t.transpose(y, 0, 2, 1, 3), (length, n, ways * hidden), x), 1, 0, 2)


def initial_state(t: Tape, x: Value, ways: int, hidden: int) -> Value:
    """Return a zero or learned state [ways, n, hidden], its shape computed where the batch is symbolic."""
    n = x.shape[0]
    if isinstance(n, int):
        return t.weight(ways, n, hidden, scale=0.3, name="state")
    shape = t.concat([t.ints(ways), t.size_of(x, 0), t.ints(hidden)], 0)
    if t.chance(0.5):
        zero = numpy_helper.from_array(np.zeros(1, t.dtype))
        return t.op("ConstantOfShape", shape, shape=(ways, n, hidden), value=zero)
    return t.op("Expand", t.weight(ways, 1, hidden, scale=0.3, name="state"), shape, shape=(ways, n, hidden))


@block(TOKENS)
def conv_tokens(t: Tape, x: Value) -> Value:
    """A one-dimensional convolution over time between two transposes."""
    y = t.transpose(x, 0, 2, 1)
    groups = t.pick([1, 1, x[2]])
    y = t.act(t.conv(y, x[2] if groups > 1 else t.width(), 3, groups=groups))
    return t.transpose(y, 0, 2, 1)


@block(TOKENS)
def mix_tokens(t: Tape, x: Value) -> Value:
    """MLP-Mixer: a linear layer over positions, then one over channels."""
    t.need(t.static(x, 1))
    y = t.transpose(x, 0, 2, 1)
    y = t.dense(t.act(t.dense(y, 6)), x[1])
    return t.add(x, t.transpose(y, 0, 2, 1))


@block(TOKENS)
def experts(t: Tape, x: Value) -> Value:
    """A soft mixture of experts: each a small network, weighed by a softmax router."""
    count = t.pick([2, 3])
    gates = t.split(t.softmax(t.dense(x, count)), [1] * count, 2)
    parts = [t.mul(gate, t.dense(t.act(t.dense(x, 6)), x[2])) for gate in gates]
    return t.add(x, t.op("Sum", *parts, shape=x.shape))


@block(TOKENS)
def experts_stacked(t: Tape, x: Value) -> Value:
    """Experts whose weights are stacked in one tensor and multiplied as a batch."""
    t.need(t.static(x, 0, 1))
    count, hidden = t.pick([2, 3]), t.pick([4, 6])
    flat = t.reshape_to(x, (x[0] * x[1], x[2]))
    up = t.weight(count, x[2], hidden, scale=1 / math.sqrt(x[2]))
    down = t.weight(count, hidden, x[2], scale=1 / math.sqrt(hidden))
    y = t.matmul(t.act(t.matmul(t.unsqueeze(flat, 0), up)), down)
    gates = t.unsqueeze(t.transpose(t.softmax(t.dense(flat, count)), 1, 0), 2)
    return t.add(x, t.reshape_to(t.reduce("ReduceSum", t.mul(y, gates), 0, keepdims=False), x.shape, x))


@block(TOKENS)
def position_table(t: Tape, x: Value) -> Value:
    """Add learned positions: a table of the length, or a longer one sliced by the length."""
    if t.static(x, 1):
        return t.add(x, t.weight(1, x[1], x[2], scale=0.5))
    t.need(t.opset >= 10)
    table = t.weight(1, LONGEST, x[2], scale=0.5)
    return t.add(x, t.op("Slice", table, t.ints(0), t.size_of(x, 1), t.ints(1), shape=(1, x.shape[1], x[2])))


@block(TOKENS)
def class_token(t: Tape, x: Value) -> Value:
    """Put a learned token in front, expanded to the batch."""
    token = t.weight(1, 1, x[2], scale=1.0)
    shape = t.concat([t.size_of(x, 0), t.ints(1, x[2])], 0)
    return t.concat([t.op("Expand", token, shape, shape=(x.shape[0], 1, x[2])), x], 1)


@block(TOKENS)
def token_windows(t: Tape, x: Value) -> Value:
    """Partition the tokens in windows, mix within each, and put them back (Swin)."""
    t.need(t.static(x, 1) and x[1] % 2 == 0)
    n, length, c = x.shape
    y = t.reshape_to(x, (n, x[1] // 2, 2, c))
    if isinstance(n, int):
        y = t.reshape_to(y, (n * (x[1] // 2), 2, c))
        logits = t.matmul(t.dense(y, 4), t.transpose(t.dense(y, 4), 0, 2, 1))
        y = t.matmul(t.softmax(logits), t.dense(y, x[2]))
    else:
        y = t.act(t.dense(y, x[2]))
    return t.reshape_to(y, (n, length, c), x)


@block(TOKENS)
def roll(t: Tape, x: Value) -> Value:
    """Roll the tokens (or the channels) by one place, with two Slices and a Concat."""
    axis = t.pick([1, 2])
    t.need(t.static(x, axis))
    size = x[axis]
    return t.concat([t.slice(x, axis, 1, size), t.slice(x, axis, 0, 1)], axis)


@block(TOKENS)
def low_rank(t: Tape, x: Value) -> Value:
    """A main path plus a scaled low-rank one (LoRA)."""
    c = t.width()
    return t.add(t.dense(x, c), t.mul(t.dense(t.dense(x, 3, bias=False), c, bias=False), t.scalar(0.5)))


@block(TOKENS)
def token_parts(t: Tape, x: Value) -> Value:
    """Split the channels, transform one part, join in another order."""
    parts = split_any(t, x, 2)
    index = t.choice.randrange(len(parts))
    parts[index] = t.act(t.dense(parts[index], t.pick([3, 4])))
    t.choice.shuffle(parts)
    return t.concat(parts, 2)


@block(TOKENS)
def normalise_modulated(t: Tape, x: Value) -> Value:
    """Normalisation whose gain and shift are computed from the pooled tokens (adaptive LayerNorm)."""
    pooled = t.reduce("ReduceMean", x, 1, keepdims=True)
    gain, shift = split_equal(t, t.dense(pooled, 2 * x[2]), 2, 2)
    centred = t.op("Sub", x, t.reduce("ReduceMean", x, -1))
    variance = t.reduce("ReduceMean", t.mul(centred, centred), -1)
    y = t.op("Div", centred, t.op("Sqrt", t.add(variance, t.scalar(1e-3))))
    return t.add(t.mul(y, t.add(gain, t.scalar(1.0))), shift)


@block(TOKENS)
def masked_tokens(t: Tape, x: Value) -> Value:
    """Zero the tokens that a constant mask hides, or that a computed score is below zero for."""
    if t.static(x, 1) and t.chance(0.5):
        mask = (t.rng.random((1, x[1], 1)) < 0.7).astype(t.dtype)
        return t.mul(x, t.constant(mask, "mask"))
    score = t.dense(x, 1)
    condition = t.op("Greater", score, t.scalar(0.0))
    return t.op("Where", condition, x, t.mul(x, t.scalar(0.1)))
