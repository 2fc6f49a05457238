"""Multi-head attention in the forms that exporters write, on tokens [n, t, c]."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Value
from random_graphs.blocks_movement import split_equal
from random_graphs.tape import LONGEST, TOKENS, Tape, block

__all__: list[str] = []


def split_heads(t: Tape, x: Value, heads: int) -> Value:
    """Bring [n, t, h*d] to [n, h, t, d]."""
    n, length, _ = x.shape
    return t.transpose(t.reshape_to(x, (n, length, heads, x[2] // heads)), 0, 2, 1, 3)


def merge_heads(t: Tape, x: Value, source: Value) -> Value:
    """Bring [n, h, t, d] back to [n, t, h*d]."""
    n, heads, length, width = x.shape
    assert isinstance(heads, int)
    assert isinstance(width, int)
    return t.reshape_to(t.transpose(x, 0, 2, 1, 3), (n, length, heads * width), source)


def attend(t: Tape, q: Value, k: Value, v: Value, *, causal: bool | None = None) -> Value:
    """Scaled dot-product attention over [n, h, t, d], with one of the usual scales and masks."""
    scale = q[3] ** -0.5
    form = t.pick(["after", "before", "divide", "both", "computed"])
    if form == "before":
        q = t.mul(q, t.scalar(scale))
    if form == "both":
        q, k = t.mul(q, t.scalar(scale**0.5)), t.mul(k, t.scalar(scale**0.5))
    logits = t.matmul(q, t.transpose(k, 0, 1, 3, 2))
    if form == "after":
        logits = t.mul(logits, t.scalar(scale))
    if form == "divide":
        logits = t.op("Div", logits, t.scalar(q[3] ** 0.5))
    if form == "computed":
        width = t.op("Cast", t.size_of(q, 3), to=t.elem_type)
        logits = t.op("Div", logits, t.op("Sqrt", width))
    if t.chance(0.4) if causal is None else causal:
        logits = mask(t, logits)
    return t.matmul(t.softmax(logits), v)


def mask(t: Tape, logits: Value) -> Value:
    """Hide the future: by an added constant, or by Where over a condition computed from the length."""
    rows, columns = logits.shape[-2:]
    if isinstance(rows, int) and isinstance(columns, int) and t.chance(0.6):
        hidden = np.triu(np.ones((rows, columns), bool), 1)
        if t.chance(0.5):
            return t.add(logits, t.constant(np.where(hidden, -1e4, 0).astype(t.dtype)[None, None], "mask"))
        return t.op("Where", t.constant(hidden, "mask"), t.scalar(-1e4), logits, shape=logits.shape)
    if t.opset < 11 or rows != columns:
        return logits
    zero, one = (t.constant(np.asarray(value, np.int64), "limit") for value in (0, 1))
    length = t.squeeze(t.size_of(logits, 2), 0)
    positions = t.op("Range", zero, length, one, shape=(rows,))
    hidden_now = t.op("Less", t.unsqueeze(positions, 1), t.unsqueeze(positions, 0))
    return t.op("Where", hidden_now, t.scalar(-1e4), logits, shape=logits.shape)


def heads_of(t: Tape, c: int) -> tuple[int, int]:
    """Return a number of heads and a head width for ``c`` channels; their product need not be ``c``."""
    if c % 2 == 0 and t.chance(0.7):
        heads = t.divisor(c, high=c // 2)
        return heads, c // heads
    return t.pick([(2, 4), (2, 6), (3, 4), (4, 4)])


@block(TOKENS, weight=2.5)
def attention_separate(t: Tape, x: Value) -> Value:
    heads, width = heads_of(t, x[2])
    q, k, v = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(3))
    return t.add(x, t.dense(merge_heads(t, attend(t, q, k, v), x), x[2]))


@block(TOKENS)
def attention_value_width(t: Tape, x: Value) -> Value:
    """The values' head width differs from the keys'."""
    heads, width, value = t.pick([(2, 4, 6), (3, 4, 2), (2, 2, 8)])
    q, k = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(2))
    v = split_heads(t, t.dense(x, heads * value), heads)
    return t.add(x, t.dense(merge_heads(t, attend(t, q, k, v), x), x[2]))


@block(TOKENS, weight=2.5)
def attention_fused(t: Tape, x: Value) -> Value:
    """One projection for queries, keys and values, taken apart by Split, Slice, Gather or per head."""
    heads, width = heads_of(t, x[2])
    n, length, _ = x.shape
    c = heads * width
    qkv = t.dense(x, 3 * c)
    form = t.pick(["split", "slice", "stack", "stack", "interleaved"])
    if form == "split":
        q, k, v = (split_heads(t, part, heads) for part in split_equal(t, qkv, 3, 2))
    elif form == "slice":
        q, k, v = (split_heads(t, t.slice(qkv, 2, i * c, (i + 1) * c), heads) for i in range(3))
    elif form == "stack":
        stacked = t.transpose(t.reshape_to(qkv, (n, length, 3, heads, width)), 2, 0, 3, 1, 4)
        if t.chance(0.5):
            q, k, v = (t.gather(stacked, t.constant(np.asarray(i, np.int64), "index"), 0) for i in range(3))
        else:
            q, k, v = (t.squeeze(part, 0) for part in split_equal(t, stacked, 3, 0))
    else:
        per_head = t.transpose(t.reshape_to(qkv, (n, length, heads, 3 * width)), 0, 2, 1, 3)
        q, k, v = split_equal(t, per_head, 3, 3)
    return t.add(x, t.dense(merge_heads(t, attend(t, q, k, v), x), x[2]))


def repeat_heads(t: Tape, x: Value, times: int) -> Value:
    """Repeat each head of [n, h, t, d] ``times`` times, as grouped-query attention does."""
    n, heads, length, width = x.shape
    assert isinstance(heads, int)
    form = t.pick(["expand", "expand", "tile", "gather", "concat"])
    if form == "gather":
        return t.gather(x, t.constant(np.repeat(np.arange(heads), times), "indices"), 1)
    y = t.unsqueeze(x, 2)
    shape = (n, heads, times, length, width)
    if form == "tile":
        y = t.op("Tile", y, t.ints(1, 1, times, 1, 1), shape=shape)
    elif form == "concat":
        y = t.concat([y] * times, 2)
    elif t.chance(0.5):
        y = t.op("Expand", y, t.ints(1, 1, times, 1, 1), shape=shape)
    else:
        parts = [t.size_of(x, 0), t.ints(heads, times), t.size_of(x, 2), t.size_of(x, 3)]
        y = t.op("Expand", y, t.concat(parts, 0), shape=shape)
    return t.reshape_to(y, (n, heads * times, length, width), x)


@block(TOKENS, weight=2)
def attention_grouped(t: Tape, x: Value) -> Value:
    """Grouped-query attention, sometimes with rotary positions."""
    heads, groups, width = t.pick([(4, 2, 4), (4, 1, 4), (6, 2, 4), (6, 3, 2)])
    q = split_heads(t, t.dense(x, heads * width), heads)
    k, v = (split_heads(t, t.dense(x, groups * width), groups) for _ in range(2))
    if t.chance(0.4) and t.opset >= 10:
        q, k = (rotate(t, value, t.seed % 2 == 0) for value in (q, k))
    k, v = (repeat_heads(t, value, heads // groups) for value in (k, v))
    return t.add(x, t.dense(merge_heads(t, attend(t, q, k, v), x), x[2]))


def rotate(t: Tape, x: Value, interleaved: bool) -> Value:
    """Apply rotary positions to [n, h, t, d], over halves or over neighbours."""
    half = x[3] // 2
    length = x.shape[2]
    limit = length if isinstance(length, int) else LONGEST
    angle = np.outer(np.arange(limit), 0.5 ** np.arange(half))
    angle = np.repeat(angle, 2, 1) if interleaved else np.concatenate([angle, angle], 1)
    tables = [t.constant(f(angle).astype(t.dtype), "table") for f in (np.cos, np.sin)]
    if isinstance(length, str):
        operands = [t.ints(0), t.size_of(x, 2), t.ints(0)]
        tables = [t.op("Slice", table, *operands, shape=(length, table[1])) for table in tables]
    if interleaved:
        odd, even = (t.unsqueeze(t.slice(x, 3, start, 2**31 - 1, 2), 4) for start in (1, 0))
        turned = t.reshape_to(t.concat([t.op("Neg", odd), even], 4), x.shape, x)
    else:
        parts = split_equal(t, x, 2, 3) if t.chance(0.5) else [t.slice(x, 3, 0, half), t.slice(x, 3, half, 2 * half)]
        turned = t.concat([t.op("Neg", parts[1]), parts[0]], 3)
    return t.add(t.mul(x, tables[0]), t.mul(turned, tables[1]))


@block(TOKENS, weight=1.5, since=10)
def attention_rotary(t: Tape, x: Value) -> Value:
    heads, width = t.pick([(2, 4), (3, 4), (2, 8)])
    q, k, v = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(3))
    interleaved = t.chance(0.5)
    q, k = rotate(t, q, interleaved), rotate(t, k, interleaved)
    return t.add(x, t.dense(merge_heads(t, attend(t, q, k, v), x), x[2]))


@block(TOKENS, since=12)
def attention_einsum(t: Tape, x: Value) -> Value:
    heads, width = t.pick([(2, 4), (3, 4), (4, 2)])
    n, length, _ = x.shape
    q, k, v = (t.reshape_to(t.dense(x, heads * width), (n, length, heads, width)) for _ in range(3))
    logits = t.op("Einsum", q, k, shape=(n, heads, length, length), equation="bqhd,bkhd->bhqk")
    weights = t.softmax(t.mul(logits, t.scalar(width**-0.5)))
    y = t.op("Einsum", weights, v, shape=(n, length, heads, width), equation="bhqk,bkhd->bqhd")
    weight = t.weight(heads, width, x[2], scale=(1.5 / heads / width) ** 0.5)
    return t.add(x, t.op("Einsum", y, weight, shape=x.shape, equation="bqhd,hdc->bqc"))


@block(TOKENS)
def attention_folded(t: Tape, x: Value) -> Value:
    """Heads folded into the batch: [n*h, t, d], as fairseq and older PyTorch write it."""
    t.need(t.static(x, 0))
    heads, width = heads_of(t, x[2])
    n, length, _ = x.shape
    c = heads * width
    parts = [t.transpose(t.dense(x, c), 1, 0, 2) for _ in range(3)]
    q, k, v = (t.transpose(t.reshape_to(part, (length, x[0] * heads, width)), 1, 0, 2) for part in parts)
    logits = t.mul(t.matmul(q, t.transpose(k, 0, 2, 1)), t.scalar(width**-0.5))
    y = t.transpose(t.matmul(t.softmax(logits), v), 1, 0, 2)
    y = t.transpose(t.reshape_to(y, (length, n, c), x), 1, 0, 2)
    return t.add(x, t.dense(y, x[2]))


@block(TOKENS)
def attention_queries(t: Tape, x: Value) -> Value:
    """Learned queries attend to the tokens, as in a detection transformer; the length becomes theirs."""
    t.need(t.static(x, 0))
    heads, width = t.pick([(2, 4), (3, 4)])
    learned = t.weight(1, 4, x[2], scale=1.0)
    n = x.shape[0]
    k, v = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(2))
    q = split_heads(t, t.dense(learned, heads * width), heads)
    y = attend(t, q, k, v, causal=False)
    y = Value(y.name, (n, heads, 4, width))
    return t.add(learned, t.dense(merge_heads(t, y, x), x[2]))


@block(TOKENS)
def attention_linear(t: Tape, x: Value) -> Value:
    """Kernelised attention: the softmax runs over the head width and over positions apart."""
    heads, width = t.pick([(2, 4), (3, 4)])
    q, k, v = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(3))
    context = t.matmul(t.transpose(t.op("Sigmoid", k), 0, 1, 3, 2), v)
    y = t.mul(t.matmul(t.softmax(q), context), t.scalar(0.2))
    return t.add(x, t.dense(merge_heads(t, y, x), x[2]))
