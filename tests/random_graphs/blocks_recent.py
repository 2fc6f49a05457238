"""Operators of the newest opsets: attention, rotary positions and RMS normalisation as one node each."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Value
from random_graphs.blocks_attention import merge_heads, split_heads
from random_graphs.tape import TOKENS, Tape, block

__all__: list[str] = []


@block(TOKENS, weight=6, since=23)
def rms_norm_operator(t: Tape, x: Value) -> Value:
    return t.op("RMSNormalization", x, t.gain(x[2]), shape=x.shape, axis=-1)


@block(TOKENS, weight=8, since=23)
def attention_operator(t: Tape, x: Value) -> Value:
    """Attention over [n, h, t, d] or over packed heads [n, t, h*d], with grouped queries."""
    heads, groups, width = t.pick([(2, 2, 4), (4, 2, 4), (4, 1, 2)])
    q = t.dense(x, heads * width)
    k, v = (t.dense(x, groups * width) for _ in range(2))
    causal = t.pick([0, 1])
    n, length, _ = x.shape
    if t.chance(0.5):
        y = t.op(
            "Attention",
            *(q, k, v),
            shape=(n, length, heads * width),
            q_num_heads=heads,
            kv_num_heads=groups,
            is_causal=causal,
        )
    else:
        q, k, v = split_heads(t, q, heads), split_heads(t, k, groups), split_heads(t, v, groups)
        y = t.op("Attention", q, k, v, shape=(n, heads, length, width), is_causal=causal)
        y = merge_heads(t, y, x)
    return t.add(x, t.dense(y, x[2]))


@block(TOKENS, weight=6, since=23)
def rotary_operator(t: Tape, x: Value) -> Value:
    """RotaryEmbedding between the projections and attention; positions are the rows of the tables."""
    t.need(t.static(x, 0, 1))
    heads, width = t.pick([(2, 4), (3, 4)])
    angle = np.outer(np.arange(x[1]), 0.5 ** np.arange(width // 2))
    tables = [t.constant(np.repeat(f(angle)[None], x[0], 0).astype(t.dtype), "table") for f in (np.cos, np.sin)]
    q, k, v = (split_heads(t, t.dense(x, heads * width), heads) for _ in range(3))
    interleaved = t.pick([0, 1])
    q, k = (t.op("RotaryEmbedding", y, *tables, shape=y.shape, interleaved=interleaved) for y in (q, k))
    logits = t.mul(t.matmul(q, t.transpose(k, 0, 1, 3, 2)), t.scalar(width**-0.5))
    return t.add(x, t.dense(merge_heads(t, t.matmul(t.softmax(logits), v), x), x[2]))
