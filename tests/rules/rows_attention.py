"""Samples of attention and rotary embedding."""

from __future__ import annotations

import numpy as np

from rules.references import packed_heads, packed_tokens, packed_tokens_apart
from rules.registry import data, of, positive, row
from rules.sample import random

_B, _S, _T, _H, _D, _E = 2, 3, 4, 3, 4, 5
_Q, _K, _V = (_B, _S, _H * _D), (_B, _T, _H * _D), (_B, _T, _H * _E)
_Q4, _K4, _V4 = (_B, _H, _S, _D), (_B, _H, _T, _D), (_B, _H, _T, _E)

# The standard operator.
_two = {"q_num_heads": _H, "kv_num_heads": _H}
row("Attention", _Q, _K, _V, **_two)
row("Attention", _Q, _K, _V, scale=0.5, **_two)
row("Attention", _Q4, _K4, _V4, scale=0.5)
row("Attention", _Q4, _K4, _V4, (_S, _T), scale=0.5)
row("Attention", _Q4, _K4, _V4, (1, _H, _S, _T), scale=0.5, name="bias")
row("Attention", (_B, 6, _S, _D), (_B, 2, _T, _D), (_B, 2, _T, _E), (6, _S, _T), scale=0.5, name="grouped")
row("Attention", (_B, _S, 6 * _D), (_B, _T, 2 * _D), (_B, _T, 2 * _E), scale=0.5, q_num_heads=6, kv_num_heads=2)
_past = ((_B, 2, 2, _D), (_B, 2, 2, _E))
row(
    "Attention", (_B, _S, 6 * _D), (_B, _S, 2 * _D), (_B, _S, 2 * _E), None, *_past,
    results=4, scale=0.5, q_num_heads=6, kv_num_heads=2, is_causal=1, name="past",
)  # fmt: skip

# com.microsoft
_M = "com.microsoft."
_I = 7
row(f"{_M}Attention", (_B, _S, _I), (_I, 3 * _H * _D), (3 * _H * _D,), num_heads=_H)
row(f"{_M}Attention", (_B, _S, _I), (_I, 3 * _H * _D), (3 * _H * _D,), num_heads=_H, scale=0.5, unidirectional=1)
_sizes = [_H * _D, _H * _D, _H * _E]
row(f"{_M}Attention", (_B, _S, _I), (_I, sum(_sizes)), (sum(_sizes),), num_heads=_H, scale=0.5, qkv_hidden_sizes=_sizes)
row(
    f"{_M}Attention", (_B, _S, _I), (_I, 3 * _H * _D), (3 * _H * _D,), None, (2, _B, _H, 2, _D),
    results=2, num_heads=_H, scale=0.5, name="past",
)  # fmt: skip
row(
    f"{_M}Attention",
    (_B, _S, _I),
    (_I, 3 * _H * _D),
    (3 * _H * _D,),
    None,
    None,
    (1, _H, _S, _S),
    num_heads=_H,
    scale=0.5,
)
_lengths = data([3, 2], np.int32)
row(f"{_M}Attention", (_B, _S, _I), (_I, 3 * _H * _D), (3 * _H * _D,), _lengths, num_heads=_H, scale=0.5, name="mask")

row(
    f"{_M}QAttention", of(np.uint8, _B, _S, _I), of(np.int8, _I, 36), (36,), data(0.01, np.float32),
    np.float32(positive(36) / 50), None, data(3, np.uint8), data([0] * 36, np.int8),
    num_heads=_H, scale=0.5, unidirectional=1,
)  # fmt: skip

row(f"{_M}MultiHeadAttention", _Q, _K, _V, num_heads=_H)
row(f"{_M}MultiHeadAttention", _Q, _K, _V, (sum(_sizes),), num_heads=_H, scale=0.5)
row(f"{_M}MultiHeadAttention", _Q, _K, _V, None, None, (1, _H, _S, _T), num_heads=_H, scale=0.5, name="bias")
row(f"{_M}MultiHeadAttention", _Q, _K4, _K4, num_heads=_H, scale=0.5)
row(f"{_M}MultiHeadAttention", (_B, _S, _H, 3, _D), num_heads=_H, scale=0.5, reference=packed_heads)
row(f"{_M}MultiHeadAttention", _Q, (_B, _T, _H, 2, _D), num_heads=_H, scale=0.5, reference=packed_heads)
row(
    f"{_M}MultiHeadAttention", _Q, (_B, _S, _H * _D), (_B, _S, _H * _D), (3 * _H * _D,), None, None,
    (_B, _H, 2, _D), (_B, _H, 2, _D), results=3, num_heads=_H, scale=0.5, name="past",
)  # fmt: skip
row(
    f"{_M}DecoderMaskedMultiHeadAttention", (_B, 1, _H * _D), (_B, 1, _H * _D), (_B, 1, _H * _D), None, None,
    (_B, _H, 8, _D), (_B, _H, 8, _D), data([2], np.int32), None, None, (3 * _H * _D,),
    results=3, num_heads=_H, scale=0.5, past_present_share_buffer=1,
)  # fmt: skip


def _grouped(width: int, packed: bool = False, rotary: bool = False, **options: object) -> None:
    k, r = 2, 3
    widths = [k * r * width, k * width, k * width]
    keys = [None, None] if packed else [random((1, _S, w), seed=5) for w in widths[1:]]
    past = [random((1, k, 2, width), seed=n) for n in (6, 7)]
    angles = random((8, width // 2), seed=8)
    caches = [np.cos(angles), np.sin(angles)] if rotary else []
    row(
        f"{_M}GroupQueryAttention", (1, _S, sum(widths) if packed else widths[0]), *keys, *past,
        data([[4]] if rotary else [4], np.int32), data(5, np.int32), *caches,
        num_heads=k * r, kv_num_heads=k, results=3, **options, **({"do_rotary": 1} if rotary else {}),
        name="packed" if packed else "",
    )  # fmt: skip


_grouped(16)
_grouped(16, scale=0.5)
_grouped(24, packed=True, scale=0.5)
_grouped(32, rotary=True, scale=0.5)
_grouped(32, packed=True, rotary=True, scale=0.5, rotary_interleaved=1)

_tokens = data([[0, 1, 2]], np.int32), data([0, 3], np.int32)
row(
    f"{_M}PackedAttention", (_S, _I), (_I, 3 * _H * _D), (3 * _H * _D,), *_tokens,
    num_heads=_H, scale=0.5, reference=packed_tokens,
)  # fmt: skip
row(
    f"{_M}PackedMultiHeadAttention", (_S, _H * _D), (_S, _H * _D), (_S, _H * _E), (sum(_sizes),), *_tokens,
    num_heads=_H, scale=0.5, reference=packed_tokens_apart,
)  # fmt: skip

# Rotary embedding.
_cos, _sin = np.cos(positive(8, 3)), np.sin(positive(8, 3))
_where = data([[0, 1, 2], [3, 4, 5]])
for interleaved in (0, 1):
    row("RotaryEmbedding", (2, 3, 5 * 6), _cos, _sin, _where, num_heads=5, interleaved=interleaved)
    row("RotaryEmbedding", (2, 5, 3, 6), _cos, _sin, _where, interleaved=interleaved)
    row(
        "RotaryEmbedding", (2, 5, 3, 10), _cos, _sin, _where, interleaved=interleaved, rotary_embedding_dim=6,
        by_onnx=True,
    )  # fmt: skip
    row(f"{_M}RotaryEmbedding", (2, 3, 5 * 6), _where, _cos, _sin, interleaved=interleaved)
    row(f"{_M}RotaryEmbedding", (2, 5, 3, 6), _where, _cos, _sin, interleaved=interleaved)
row("RotaryEmbedding", (2, 5, 3, 6), (2, 3, 3), (2, 3, 3))
row(f"{_M}RotaryEmbedding", (2, 3, 50), _where, _cos, _sin, num_heads=5, rotary_embedding_dim=6)

# Linear attention.
_state = (_B, 2, _D, _E)
for rule, decay, beta in (
    ("linear", None, None),
    ("gated", (_B, _S, 2), None),
    ("gated", (_B, _S, 2 * _D), None),
    ("delta", None, (_B, _S, 2)),
    ("gated_delta", (_B, _S, 2), (_B, _S, 1)),
):
    for domain in ("", _M):
        row(
            f"{domain}LinearAttention", (_B, _S, 6 * _D), (_B, _S, 2 * _D), (_B, _S, 2 * _E), _state, decay, beta,
            results=2, opset=27, q_num_heads=6, kv_num_heads=2, scale=0.5, update_rule=rule,
        )  # fmt: skip
