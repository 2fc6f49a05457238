"""Decoders with rotary positions, grouped queries and gated feed-forward layers: Llama, and one with experts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from graphprune.models.reference.blocks import merge_heads, rms_norm, silu, split_heads
from graphprune.models.reference.builder import GraphBuilder, Value

__all__ = ["LlamaSizes", "build_llama", "llama", "mixture_of_experts"]


@dataclass(frozen=True, slots=True)
class LlamaSizes:
    """The extents of a Llama-like decoder."""

    layers: int = 32
    hidden: int = 512
    heads: int = 8
    groups: int = 2
    inner: int = 1376
    vocabulary: int = 32000
    longest: int = 2048

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.hidden // self.heads


TINY = LlamaSizes(layers=2, hidden=32, heads=4, groups=2, inner=48, vocabulary=50, longest=32)


def llama(
    *,
    tiny: bool = False,
    sizes: LlamaSizes | None = None,
    depth: int | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """Build a Llama-like decoder (Touvron et al. 2023); ``depth`` overrides the number of layers."""
    sizes = sizes or (TINY if tiny else LlamaSizes())
    return build_llama(GraphBuilder(name="llama", seed=seed), sizes, depth or sizes.layers)


def build_llama(b: GraphBuilder, sizes: LlamaSizes, layers: int) -> onnx.ModelProto:
    """Append a decoder to ``b`` and return its model."""
    ids = b.input("input_ids", ("batch", "length"), np.int64)
    x = b.gather(b.weight(sizes.vocabulary, sizes.hidden, scale=1.0, name="embed"), ids, 0)
    angle = np.outer(np.arange(sizes.longest), 10000.0 ** (-np.arange(0, sizes.head_width, 2) / sizes.head_width))
    angle = np.concatenate([angle, angle], 1)
    length = b.shape_of(ids, 1)
    tables = []
    for name, values in (("cos", np.cos(angle)), ("sin", np.sin(angle))):
        table = b.constant(values.astype(b.dtype), name)
        shape = ("length", sizes.head_width)
        tables.append(b.op("Slice", table, b.ints(0), length, b.ints(0), shape=shape))
    hidden = future(b, length)
    for layer in range(layers):
        with b.scope(f"layers.{layer}"):
            x = b.add(x, attention(b, rms_norm(b, x), sizes, tables, hidden))
            x = b.add(x, feed_forward(b, rms_norm(b, x), sizes.inner))
    b.output(b.linear(rms_norm(b, x), sizes.vocabulary, bias=False), "logits")
    return b.model()


def future(b: GraphBuilder, length: Value) -> Value:
    """Return the boolean mask [length, length] of positions that come later."""
    limit = b.squeeze(length, 0)
    zero, one = (b.constant(np.asarray(value, np.int64), "limit") for value in (0, 1))
    places = b.op("Range", zero, limit, one, shape=("length",))
    return b.op("Less", b.unsqueeze(places, 1), b.unsqueeze(places, 0), shape=("length", "length"))


def attention(b: GraphBuilder, x: Value, sizes: LlamaSizes, tables: list[Value], hidden: Value) -> Value:
    """Grouped-query attention with rotary positions."""
    width, times = sizes.head_width, sizes.heads // sizes.groups
    q = split_heads(b, b.linear(x, sizes.heads * width, bias=False), sizes.heads)
    k, v = (split_heads(b, b.linear(x, sizes.groups * width, bias=False), sizes.groups) for _ in range(2))
    q, k = rotate(b, q, tables), rotate(b, k, tables)
    k, v = (repeat(b, value, times) for value in (k, v))
    logits = b.mul(b.matmul(q, b.transpose(k, 0, 1, 3, 2)), b.scalar(width**-0.5))
    logits = b.op("Where", hidden, b.scalar(-1e4), logits, shape=logits.shape)
    return b.linear(merge_heads(b, b.matmul(b.softmax(logits), v)), sizes.hidden, bias=False)


def rotate(b: GraphBuilder, x: Value, tables: list[Value]) -> Value:
    """Apply rotary positions over the halves of the last axis."""
    half = x[3] // 2
    low, high = b.slice(x, 3, 0, half), b.slice(x, 3, half, 2**31 - 1)
    turned = b.concat([b.op("Neg", high), low], 3)
    return b.op("Add", b.mul(x, tables[0]), b.mul(turned, tables[1]), shape=x.shape)


def repeat(b: GraphBuilder, x: Value, times: int) -> Value:
    """Repeat each key or value head ``times`` times: Unsqueeze, Expand, Reshape, by computed shapes."""
    if times == 1:
        return x
    n, groups, length, width = x.shape
    sizes = [b.shape_of(x, axis) for axis in range(4)]
    wide = b.concat([*sizes[:2], b.ints(times), *sizes[2:]], 0)
    y = b.op("Expand", b.unsqueeze(x, 2), wide, shape=(n, groups, times, length, width))
    flat = b.concat([sizes[0], b.mul(sizes[1], b.ints(times)), *sizes[2:]], 0)
    return b.op("Reshape", y, flat, shape=(n, x[1] * times, length, width))


def feed_forward(b: GraphBuilder, x: Value, inner: int) -> Value:
    """Gated feed-forward layer: ``down(silu(gate(x)) * up(x))``."""
    gate, up = b.linear(x, inner, bias=False), b.linear(x, inner, bias=False)
    return b.linear(b.mul(silu(b, gate), up), x[2], bias=False)


def mixture_of_experts(
    *, tiny: bool = False, width: int | None = None, experts: int | None = None, seed: int = 0
) -> onnx.ModelProto:
    """Build token-wise layers of experts: a router's two best experts per token, weighed and summed."""
    b = GraphBuilder(name="mixture_of_experts", seed=seed)
    width, experts = width or (12 if tiny else 256), experts or (4 if tiny else 8)
    vocabulary, depth = (50, 1) if tiny else (8000, 4)
    x = b.gather(b.weight(vocabulary, width, scale=1.0), b.input("input_ids", ("batch", "length"), np.int64), 0)
    for layer in range(depth):
        with b.scope(f"layer{layer}"):
            y = rms_norm(b, x)
            gates = route(b, b.linear(y, experts, bias=False), 2)
            parts = [b.mul(gate, feed_forward(b, y, 2 * width)) for gate in b.split(gates, [1] * experts, 2)]
            x = b.add(x, b.op("Sum", *parts, shape=x.shape))
    b.output(b.linear(rms_norm(b, x), vocabulary, bias=False), "logits")
    return b.model()


def route(b: GraphBuilder, logits: Value, best: int) -> Value:
    """Return gates [n, t, experts]: the softmax of the ``best`` largest logits, zero elsewhere."""
    shape = (*logits.shape[:2], best)
    values, places = b.ops("TopK", logits, b.ints(best), shapes=[shape, shape], axis=-1)
    zeros = b.mul(logits, b.scalar(0.0))
    return b.op("ScatterElements", zeros, places, b.softmax(values), shape=logits.shape, axis=-1)
