"""Operators that no CPU runtime here has, in numpy, on the operands of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from rules.sample import Array


def softmax(x: Array) -> Array:
    grown = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(grown / grown.sum(-1, keepdims=True))


def attend(q: Array, k: Array, v: Array, scale: float) -> Array:
    """Attention of ``b s h d`` operands, heads merged again."""
    scores = np.einsum("bqhd,bshd->bhqs", q, k) * scale
    y = np.einsum("bhqs,bshe->bqhe", softmax(scores), v)
    return np.asarray(y.reshape(*y.shape[:2], -1))


def packed_heads(q: Array, kv: Array | None = None, *, scale: float, num_heads: int, **_: Any) -> Array:
    """MultiHeadAttention on ``b s h 3 d``, or on ``b s (h d)`` with ``b s h 2 d``."""
    if kv is None:
        return attend(q[..., 0, :], q[..., 1, :], q[..., 2, :], scale)
    return attend(q.reshape(*q.shape[:2], num_heads, -1), kv[..., 0, :], kv[..., 1, :], scale)


def packed_tokens(x: Array, w: Array, b: Array, *_: Array, scale: float, num_heads: int, **__: Any) -> Array:
    """PackedAttention of one sequence."""
    q, k, v = np.moveaxis((x @ w + b).reshape(1, len(x), 3, num_heads, -1), 2, 0)
    return np.asarray(attend(q, k, v, scale)[0])


def packed_tokens_apart(q: Array, k: Array, v: Array, b: Array, *_: Array, scale: float, num_heads: int) -> Array:
    """PackedMultiHeadAttention of one sequence."""
    parts = np.split(b, np.cumsum([q.shape[1], k.shape[1]]))
    heads = [(x + own).reshape(1, len(x), num_heads, -1) for x, own in zip((q, k, v), parts, strict=True)]
    return np.asarray(attend(*heads, scale)[0])


def group_norm(x: Array, scale: Array, bias: Array, *, groups: int, channels_last: int = 1, **_: Any) -> Array:
    """GroupNorm, channels last unless told."""
    x = x if channels_last else np.moveaxis(x, 1, -1)
    split = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    normal = (split - split.mean((1, 3), keepdims=True)) / np.sqrt(split.var((1, 3), keepdims=True) + 1e-5)
    y = normal.reshape(x.shape) * scale + bias
    return np.asarray(y if channels_last else np.moveaxis(y, -1, 1))


def skip_group_norm(
    x: Array, scale: Array, bias: Array, skip: Array, extra: Array, **options: Any
) -> tuple[Array, Array]:
    """SkipGroupNorm with a skip of ``n c`` or ``n h w c``."""
    skip = skip[:, None, None, :] if skip.ndim == 2 else skip
    added = x + skip + extra
    return group_norm(added, scale, bias, **options), added


def max_roi_pool(x: Array, rois: Array, **_: Any) -> Array:
    """The maximum of each of four quarters of the region, every one at least a pixel."""
    result = []
    for batch, left, top, right, bottom in rois.astype(int):
        rows, columns = (np.array_split(np.arange(a, b + 1), 2) for a, b in ((top, bottom), (left, right)))
        picked = [[x[batch][:, r][:, :, c].max((1, 2)) for c in columns] for r in rows]
        result.append(np.moveaxis(np.array(picked), -1, 0))
    return np.array(result)


def position_bias(table: Array, queries: Array, keys: Array, **_: Any) -> Array:
    """RelativePositionBias with plain distances for buckets."""
    distance = np.abs(np.arange(int(queries[0]))[:, None] - np.arange(int(keys[0])))
    return np.asarray(np.moveaxis(table[distance], -1, 0)[None])


def swiglu(gate: Array, value: Array | None = None, **_: Any) -> Array:
    """SwiGLU, of two halves where there is no second operand."""
    if value is None:
        gate, value = np.split(gate, 2, -1)
    return np.asarray(gate / (1 + np.exp(-gate)) * value)


def mixture(
    x: Array, router: Array, w1: Array, _: None, w2: Array, __: None = None, w3: Array | None = None, **___: Any
) -> Array:
    """MoE of one expert for each token, gated by the third weights or by the second half of the first ones."""
    best = router.argmax(-1)
    chance = softmax(router)[np.arange(len(x)), best]
    result = []
    for token, expert in zip(x, best, strict=True):
        value = None if w3 is None else w3[expert] @ token
        result.append(w2[expert] @ swiglu(w1[expert] @ token, value))
    return np.array(result) * chance[:, None]
