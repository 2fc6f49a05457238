"""Encoders and a decoder with learned positions: ViT, BERT, GPT-2."""

from __future__ import annotations

import numpy as np
import onnx

from graphprune.models.reference.blocks import gelu, index, layer_norm, merge_heads, split_heads
from graphprune.models.reference.builder import GraphBuilder, Value

__all__ = ["bert", "gpt2", "vit"]


def attend(b: GraphBuilder, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Scaled dot-product attention over [n, h, t, d], merged to [n, t, h*d]; ``bias`` is added to the logits."""
    logits = b.op("Div", b.matmul(q, b.transpose(k, 0, 1, 3, 2)), b.scalar(q[3] ** 0.5))
    if bias is not None:
        logits = b.op("Add", logits, bias, shape=logits.shape)
    return merge_heads(b, b.matmul(b.softmax(logits), v))


def vit(
    *, tiny: bool = False, width: int | None = None, depth: int | None = None, classes: int = 1000, seed: int = 0
) -> onnx.ModelProto:
    """Build a vision transformer (Dosovitskiy et al. 2021), ViT-S/16 by default; queries, keys and values fused."""
    b = GraphBuilder(name="vit", seed=seed)
    width, depth = width or (24 if tiny else 384), depth or (2 if tiny else 12)
    heads, size, patch = (3, 16, 4) if tiny else (6, 224, 16)
    image = b.input("image", ("batch", 3, size, size))
    x = b.conv(image, width, patch, stride=patch, padding=0)
    count = x[2] * x[3]
    x = b.transpose(b.reshape(x, [0, width, -1], ("batch", width, count)), 0, 2, 1)
    shape = b.concat([b.shape_of(image, 0), b.ints(1, width)], 0)
    token = b.op("Expand", b.weight(1, 1, width, scale=1.0), shape, shape=("batch", 1, width))
    x = b.add(b.concat([token, x], 1), b.weight(1, count + 1, width, scale=0.5))
    for layer in range(depth):
        with b.scope(f"layer{layer}"):
            x = b.add(x, fused_attention(b, layer_norm(b, x), heads))
            x = b.add(x, b.linear(gelu(b, b.linear(layer_norm(b, x), 4 * width)), width))
    x = b.gather(layer_norm(b, x), index(b, 0), 1)
    b.output(b.gemm(x, classes), "logits")
    return b.model()


def fused_attention(b: GraphBuilder, x: Value, heads: int) -> Value:
    """Self-attention whose projection is viewed as [3, heads, width] and taken apart by Gather."""
    n, length, _ = x.shape
    qkv = b.linear(x, 3 * x[2])
    shape = (n, length, 3, heads, x[2] // heads)
    qkv = b.transpose(b.reshape(qkv, [0, 0, 3, heads, x[2] // heads], shape), 2, 0, 3, 1, 4)
    q, k, v = (b.gather(qkv, index(b, part), 0) for part in range(3))
    return b.linear(attend(b, q, k, v), x[2])


def bert(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """Build a BERT encoder (Devlin et al. 2019) with a mask, symbolic batch and length, and a pooled output."""
    b = GraphBuilder(name="bert", seed=seed)
    width, depth = width or (24 if tiny else 768), depth or (2 if tiny else 12)
    heads, vocabulary, longest = (3, 50, 32) if tiny else (12, 30522, 512)
    shape = ("batch", "length")
    ids, mask, kinds = (b.input(name, shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids"))
    x = b.add(
        b.gather(b.weight(vocabulary, width, scale=0.5, name="words"), ids, 0),
        b.gather(b.weight(2, width, scale=0.5, name="kinds"), b.op("Mod", kinds, b.ints(2)), 0),
    )
    places = b.constant(np.arange(longest, dtype=np.int64)[None], "places")
    places = b.op("Slice", places, b.ints(0), b.shape_of(ids, 1), b.ints(1), shape=(1, "length"))
    x = layer_norm(b, b.add(x, b.gather(b.weight(longest, width, scale=0.5, name="positions"), places, 0)))
    seen = b.op("Cast", b.unsqueeze(b.unsqueeze(mask, 1), 2), to=b.elem_type)
    bias = b.mul(b.op("Sub", b.scalar(1.0), seen), b.scalar(-10000.0))
    for layer in range(depth):
        with b.scope(f"layer{layer}"):
            q, k, v = (split_heads(b, b.linear(x, width), heads) for _ in range(3))
            x = layer_norm(b, b.add(b.linear(attend(b, q, k, v, bias), width), x))
            x = layer_norm(b, b.add(b.linear(gelu(b, b.linear(x, 4 * width)), width), x))
    b.output(x, "last_hidden_state")
    b.output(b.op("Tanh", b.gemm(b.gather(x, index(b, 0), 1), width)), "pooled")
    return b.model()


def gpt2(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """Build GPT-2 (Radford et al. 2019): fused Conv1D projections as Gemm, computed shapes, tied output weights."""
    b = GraphBuilder(name="gpt2", seed=seed)
    width, depth = width or (24 if tiny else 768), depth or (2 if tiny else 12)
    heads, vocabulary, longest = (3, 50, 32) if tiny else (12, 50257, 1024)
    ids = b.input("input_ids", ("batch", "length"), np.int64)
    words = b.weight(vocabulary, width, scale=0.5, name="wte")
    places = b.weight(1, longest, width, scale=0.5, name="wpe")
    length = b.shape_of(ids, 1)
    places = b.op("Slice", places, b.ints(0), length, b.ints(1), shape=(1, "length", width))
    x = b.add(b.gather(words, ids, 0), places)
    causal = b.constant(np.tril(np.ones((1, 1, longest, longest), bool)), "causal")
    causal = b.op(
        "Slice", causal, b.ints(0, 0), b.concat([length, length], 0), b.ints(2, 3), shape=(1, 1, *["length"] * 2)
    )
    for layer in range(depth):
        with b.scope(f"layer{layer}"):
            qkv = conv1d(b, layer_norm(b, x), 3 * width)
            q, k, v = (heads_computed(b, part, heads) for part in b.split(qkv, [width] * 3, 2))
            x = b.add(conv1d(b, attend_causal(b, q, k, v, causal), width), x)
            x = b.add(x, conv1d(b, gelu_tanh(b, conv1d(b, layer_norm(b, x), 4 * width)), width))
    x = layer_norm(b, x)
    b.output(b.matmul(x, b.transpose(words, 1, 0)), "logits")
    return b.model()


def conv1d(b: GraphBuilder, x: Value, out: int) -> Value:
    """Apply a linear layer as GPT-2's exports do: flatten to rank two, Gemm, restore the computed shape."""
    shape = b.concat([b.shape_of(x, 0), b.shape_of(x, 1), b.ints(out)], 0)
    flat = b.reshape(x, [-1, x[2]], ("tokens", x[2]))
    weight, bias = b.weight(x[2], out, scale=(1 / x[2]) ** 0.5), b.weight(out, name="bias")
    y = b.op("Gemm", flat, weight, bias, shape=("tokens", out))
    return b.op("Reshape", y, shape, shape=(*x.shape[:2], out))


def heads_computed(b: GraphBuilder, x: Value, heads: int) -> Value:
    """Bring [n, t, h*d] to [n, h, t, d] by a shape whose width is computed by division."""
    width = b.op("Div", b.shape_of(x, 2), b.ints(heads), shape=(1,))
    shape = b.concat([b.shape_of(x, 0), b.shape_of(x, 1), b.ints(heads), width], 0)
    y = b.op("Reshape", x, shape, shape=(*x.shape[:2], heads, x[2] // heads))
    return b.transpose(y, 0, 2, 1, 3)


def attend_causal(b: GraphBuilder, q: Value, k: Value, v: Value, causal: Value) -> Value:
    """Attend under a boolean mask, merging the heads by a computed shape."""
    logits = b.op("Div", b.matmul(q, b.transpose(k, 0, 1, 3, 2)), b.scalar(q[3] ** 0.5))
    logits = b.op("Where", causal, logits, b.scalar(-1e4), shape=logits.shape)
    y = b.transpose(b.matmul(b.softmax(logits), v), 0, 2, 1, 3)
    merged = b.mul(b.shape_of(y, 2), b.shape_of(y, 3))
    shape = b.concat([b.shape_of(y, 0), b.shape_of(y, 1), merged], 0)
    return b.op("Reshape", y, shape, shape=(*y.shape[:2], y[2] * y[3]))


def gelu_tanh(b: GraphBuilder, x: Value) -> Value:
    """Return GPT-2's Gelu, the one with Tanh."""
    inner = b.mul(b.add(x, b.mul(b.op("Pow", x, b.scalar(3.0)), b.scalar(0.044715))), b.scalar(0.7978845608))
    return b.mul(b.mul(x, b.scalar(0.5)), b.add(b.op("Tanh", inner), b.scalar(1.0)))
