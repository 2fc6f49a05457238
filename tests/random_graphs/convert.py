"""From one kind of value to another: map [n, c, h, w], tokens [n, t, c], vector [n, c]."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Dim, Value
from random_graphs.blocks_movement import flat
from random_graphs.tape import MAP, TOKENS, VECTOR, Tape

__all__ = ["CHANNEL_AXIS", "convert", "project", "trim"]

CHANNEL_AXIS = {MAP: 1, TOKENS: 2, VECTOR: 1}


def convert(t: Tape, x: Value, kind: str, target: str) -> Value:
    """Bring ``x`` from ``kind`` to ``target``; gives up where a size that it needs is symbolic."""
    if kind == target:
        return x
    if kind == MAP:
        return map_to_tokens(t, x) if target == TOKENS else map_to_vector(t, x)
    if kind == TOKENS:
        return tokens_to_map(t, x) if target == MAP else tokens_to_vector(t, x)
    if target == TOKENS:
        return vector_to_tokens(t, x)
    y = t.dense(x, 4 * t.pick([2, 3, 4]))
    return t.reshape_to(y, (x.shape[0], y[1] // 4, 2, 2), x)


def map_to_tokens(t: Tape, x: Value) -> Value:
    """Flatten space and put channels last, in either order."""
    n, c = x.shape[:2]
    length = flat(x)
    if t.chance(0.5):
        return t.transpose(t.reshape_to(x, (n, c, length)), 0, 2, 1)
    y = t.transpose(x, 0, 2, 3, 1)
    return t.reshape_to(y, (n, length, c), x)


def map_to_vector(t: Tape, x: Value) -> Value:
    """Pool over space, or flatten channels and space together."""
    n, c = x.shape[:2]
    form = t.pick(["flatten", "flatten", "reshape", "pool", "mean", "max", "attend"])
    if form in ("flatten", "reshape") and t.static(x, 2, 3) and x[1] * x[2] * x[3] <= 2048:
        size = x[1] * x[2] * x[3]
        y = t.op("Flatten", x, shape=(n, size), axis=1) if form == "flatten" else t.reshape_to(x, (n, size))
        return t.act(t.dense(y, t.width()))
    if form == "mean":
        return t.reduce("ReduceMean", x, 2, 3, keepdims=False)
    if form == "max":
        pooled = t.op("GlobalMaxPool", x, shape=(n, c, 1, 1))
        return t.squeeze(pooled, 2, 3)
    pooled = t.global_pool(x)
    return t.op("Flatten", pooled, shape=(n, c), axis=1) if t.chance(0.5) else t.reshape_to(pooled, (n, c))


def tokens_to_map(t: Tape, x: Value) -> Value:
    """Lay the tokens out in two columns."""
    t.need(t.static(x, 1) and x[1] % 2 == 0)
    n, _, c = x.shape
    shape: tuple[Dim, ...] = (n, c, x[1] // 2, 2)
    if t.chance(0.5):
        return t.reshape_to(t.transpose(x, 0, 2, 1), shape, x)
    return t.transpose(t.reshape_to(x, (n, x[1] // 2, 2, c)), 0, 3, 1, 2)


def tokens_to_vector(t: Tape, x: Value) -> Value:
    """Take the mean, the largest, the first or the last token, or all of them."""
    form = t.pick(["mean", "max", "first", "last", "flatten"])
    n = x.shape[0]
    if form == "flatten" and t.static(x, 1) and x[1] * x[2] <= 512:
        y = t.reshape_to(x, (n, x[1] * x[2]))
        return t.act(t.dense(y, t.width()))
    if form == "first":
        return t.gather(x, t.constant(np.asarray(0, np.int64), "index"), 1)
    if form == "last":
        return t.squeeze(t.slice(x, 1, -1, 2**31 - 1, extent=1), 1)
    return t.reduce("ReduceMax" if form == "max" else "ReduceMean", x, 1, keepdims=False)


def vector_to_tokens(t: Tape, x: Value) -> Value:
    """View the channels as tokens, or repeat the vector with learned offsets."""
    n = x.shape[0]
    if x[1] % 4 == 0 and t.chance(0.5):
        return t.reshape_to(x, (n, 4, x[1] // 4))
    return t.add(t.unsqueeze(x, 1), t.weight(1, 4, x[1], scale=0.5))


def project(t: Tape, x: Value, channels: int, kind: str) -> Value:
    """Bring ``x`` to ``channels`` by a linear map over its channel axis."""
    return t.conv(x, channels, 1) if kind == MAP else t.dense(x, channels)


def trim(t: Tape, x: Value, kind: str) -> Value:
    """Keep graphs small: bring many channels down to a few."""
    return project(t, x, 12, kind) if x[CHANNEL_AXIS[kind]] > 48 else x
