"""Operators of the ``com.microsoft`` domain that exporters and ONNX Runtime's optimizer write; float32 only."""

from __future__ import annotations

import numpy as np

from graphprune.models.reference.builder import Value
from random_graphs.tape import MAP, TOKENS, Tape, block

__all__: list[str] = []

DOMAIN = "com.microsoft"


def single(t: Tape) -> None:
    """Give up where the graph is not float32: these kernels exist for the CPU in float32 only."""
    t.need(np.dtype(t.dtype) == np.float32)


@block(MAP)
def fused_conv(t: Tape, x: Value) -> Value:
    """FusedConv, sometimes with the summand that is its fourth input."""
    single(t)
    c = t.width()
    summand = t.conv(x, c, 1) if t.chance(0.4) else None
    return t.op(
        "FusedConv",
        x,
        t.weight(c, x[1], 3, 3),
        t.weight(c, name="bias"),
        summand,
        shape=(x.shape[0], c, *x.shape[2:]),
        domain=DOMAIN,
        activation="Relu",
        kernel_shape=[3, 3],
        pads=[1] * 4,
    )


@block(TOKENS)
def fused_matmul(t: Tape, x: Value) -> Value:
    """FusedMatMul with either operand transposed."""
    single(t)
    c = t.width()
    if t.chance(0.5):
        weight = t.weight(c, x[2])
        return t.op("FusedMatMul", x, weight, shape=(*x.shape[:2], c), domain=DOMAIN, transB=1, alpha=0.5)
    t.need(t.static(x, 1))
    y = t.transpose(x, 0, 2, 1)
    weight = t.weight(x[2], c, scale=x[2] ** -0.5)
    return t.act(t.op("FusedMatMul", y, weight, shape=(*x.shape[:2], c), domain=DOMAIN, transA=1))


@block(TOKENS)
def fused_gelu(t: Tape, x: Value) -> Value:
    """Gelu, BiasGelu, FastGelu or QuickGelu."""
    single(t)
    y = t.dense(x, t.width(), bias=False)
    kind = t.pick(["Gelu", "BiasGelu", "FastGelu", "QuickGelu"])
    bias = t.weight(y[2], name="bias") if kind in ("BiasGelu", "FastGelu") else None
    return t.op(kind, y, bias, shape=y.shape, domain=DOMAIN)


@block(TOKENS)
def skip_norm(t: Tape, x: Value) -> Value:
    """SkipLayerNormalization or its simplified form, sometimes with the sum as a further result."""
    single(t)
    branch = t.dense(x, x[2])
    gain, bias, more = t.gain(x[2]), t.weight(x[2], name="bias"), t.weight(x[2], name="more")
    simplified = t.chance(0.5)
    kind = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    operands = [x, branch, gain, more] if simplified else [x, branch, gain, bias, more]
    if t.chance(0.5):
        return t.op(kind, *operands, shape=x.shape, domain=DOMAIN)
    mean: tuple[int, ...] = (0,)
    y, _, _, total = t.ops(kind, *operands, shapes=[x.shape, mean, mean, x.shape], domain=DOMAIN)
    return t.add(total, t.dense(y, x[2]))


@block(TOKENS)
def simplified_norm(t: Tape, x: Value) -> Value:
    """SimplifiedLayerNormalization, which ONNX Runtime keeps in the default domain."""
    single(t)
    t.need(t.opset < 23)
    return t.op("SkipSimplifiedLayerNormalization", x, x, t.gain(x[2]), shape=x.shape, domain=DOMAIN)


@block(TOKENS)
def packed_attention(t: Tape, x: Value) -> Value:
    """Attention with one packed weight for queries, keys and values."""
    single(t)
    heads, width = t.pick([(2, 4), (3, 4)])
    c = heads * width
    weight, bias = t.weight(x[2], 3 * c, scale=x[2] ** -0.5), t.weight(3 * c, name="bias")
    y = t.op(
        "Attention",
        *(x, weight, bias),
        shape=(*x.shape[:2], c),
        domain=DOMAIN,
        num_heads=heads,
        unidirectional=t.pick([0, 1]),
    )
    return t.add(x, t.dense(y, x[2]))


@block(TOKENS)
def multi_head_attention(t: Tape, x: Value) -> Value:
    """MultiHeadAttention over projected queries, keys and values, with their bias packed."""
    single(t)
    heads, width = t.pick([(2, 4), (3, 4)])
    c = heads * width
    q, k, v = (t.dense(x, c, bias=False) for _ in range(3))
    bias = t.weight(3 * c, name="bias") if t.chance(0.5) else None
    y = t.op("MultiHeadAttention", q, k, v, bias, shape=(*x.shape[:2], c), domain=DOMAIN, num_heads=heads)
    return t.add(x, t.dense(y, x[2]))


@block(TOKENS)
def group_query_attention(t: Tape, x: Value) -> Value:
    """GroupQueryAttention without a past: lengths are constants."""
    single(t)
    t.need(t.static(x, 0, 1))
    heads, groups, width = t.pick([(4, 2, 8), (2, 2, 8), (4, 1, 16)])
    q = t.dense(x, heads * width, bias=False)
    k, v = (t.dense(x, groups * width, bias=False) for _ in range(2))
    last = t.constant(np.full(x[0], x[1] - 1, np.int32), "last")
    total = t.constant(np.asarray(x[1], np.int32), "total")
    cache = (x.shape[0], groups, x.shape[1], width)
    y = t.ops(
        "GroupQueryAttention",
        *(q, k, v, None, None, last, total),
        shapes=[(*x.shape[:2], heads * width), cache, cache],
        domain=DOMAIN,
        num_heads=heads,
        kv_num_heads=groups,
    )[0]
    return t.add(x, t.dense(y, x[2]))


@block(TOKENS)
def rotary_fused(t: Tape, x: Value) -> Value:
    """RotaryEmbedding of com.microsoft over packed heads."""
    single(t)
    t.need(t.static(x, 0, 1))
    heads, width = 2, 4
    angle = np.outer(np.arange(x[1]), 0.5 ** np.arange(width // 2))
    tables = [t.constant(f(angle).astype(t.dtype), "table") for f in (np.cos, np.sin)]
    places = t.constant(np.tile(np.arange(x[1], dtype=np.int64), (x[0], 1)), "places")
    options = {"domain": DOMAIN, "num_heads": heads, "rotary_embedding_dim": 0, "interleaved": t.pick([0, 1])}
    q, k, v = (t.dense(x, heads * width) for _ in range(3))
    q, k = (t.op("RotaryEmbedding", y, places, *tables, shape=y.shape, **options) for y in (q, k))
    y = t.op("MultiHeadAttention", q, k, v, shape=v.shape, domain=DOMAIN, num_heads=heads)
    return t.add(x, t.dense(y, x[2]))
