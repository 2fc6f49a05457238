"""Swin transformer: shifted windows, relative position bias, patch merging (Liu et al. 2021)."""

from __future__ import annotations

import numpy as np
import onnx

from graphprune.models.reference.blocks import gelu, index, layer_norm
from graphprune.models.reference.builder import Array, GraphBuilder, Value

__all__ = ["swin_t"]


def swin_t(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build Swin-T; activations are [n, h, w, c]."""
    b = GraphBuilder(name="swin_t", seed=seed)
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    if tiny:
        width, depths, heads, size, patch, window = width or 12, (2, 2), (2, 4), 32, 4, 2
    else:
        width, depths, heads, size, patch, window = width or 96, (2, 2, 6, 2), (3, 6, 12, 24), 224, 4, 7
    x = b.conv(b.input("image", ("batch", 3, size, size)), width, patch, stride=patch, padding=0)
    x = layer_norm(b, b.transpose(x, 0, 2, 3, 1))
    for stage, depth in enumerate(depths):
        for layer in range(depth):
            shift = window // 2 if layer % 2 and x[1] > window else 0
            with b.scope(f"stage{stage}.{layer}"):
                x = b.add(x, window_attention(b, layer_norm(b, x), heads[stage], window, shift))
                hidden = gelu(b, b.linear(layer_norm(b, x), 4 * x[3]))
                x = b.add(x, b.linear(hidden, x[3]))
        if stage + 1 < len(depths):
            x = merge_patches(b, x)
    x = b.reduce("ReduceMean", layer_norm(b, x), 1, 2, keepdims=False)
    b.output(b.gemm(x, classes), "logits")
    return b.model()


def roll(b: GraphBuilder, x: Value, shift: int) -> Value:
    """Roll height and width by ``-shift``, each by two Slices and a Concat."""
    for axis in (1, 2):
        start = shift % x[axis]
        x = b.concat([b.slice(x, axis, start, 2**31 - 1), b.slice(x, axis, 0, start)], axis)
    return x


def window_attention(b: GraphBuilder, x: Value, heads: int, window: int, shift: int) -> Value:
    """Attend within windows of ``window`` by ``window``, the grid shifted by ``shift``."""
    n, h, w, c = x.shape
    rows, columns, area, width = x[1] // window, x[2] // window, window * window, x[3] // heads
    y = roll(b, x, shift) if shift else x
    y = b.reshape(y, [-1, rows, window, columns, window, x[3]], (n, rows, window, columns, window, c))
    y = b.reshape(b.transpose(y, 0, 1, 3, 2, 4, 5), [-1, area, x[3]], ("windows", area, c))
    qkv = b.reshape(b.linear(y, 3 * x[3]), [-1, area, 3, heads, width], ("windows", area, 3, heads, width))
    qkv = b.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (b.gather(qkv, index(b, part), 0) for part in range(3))
    logits = b.matmul(b.mul(q, b.scalar(width**-0.5)), b.transpose(k, 0, 1, 3, 2))
    logits = b.op("Add", logits, position_bias(b, heads, window), shape=logits.shape)
    if shift:
        shape = (n, rows * columns, heads, area, area)
        hidden = b.constant(shift_mask(x[1], x[2], window, shift).astype(b.dtype)[:, None], "hidden")
        spread = b.add(b.reshape(logits, [-1, rows * columns, heads, area, area], shape), hidden)
        logits = b.reshape(spread, [-1, heads, area, area], logits.shape)
    y = b.transpose(b.matmul(b.softmax(logits), v), 0, 2, 1, 3)
    y = b.linear(b.reshape(y, [-1, area, x[3]], ("windows", area, c)), x[3])
    y = b.reshape(y, [-1, rows, columns, window, window, x[3]], (n, rows, columns, window, window, c))
    y = b.reshape(b.transpose(y, 0, 1, 3, 2, 4, 5), [-1, x[1], x[2], x[3]], (n, h, w, c))
    return roll(b, y, -shift) if shift else y


def position_bias(b: GraphBuilder, heads: int, window: int) -> Value:
    """Return the bias [1, heads, area, area], gathered from a table by relative position."""
    area = window * window
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    offsets = (places[:, :, None] - places[:, None, :]) + window - 1
    indices = b.constant((offsets[0] * (2 * window - 1) + offsets[1]).reshape(-1).astype(np.int64), "indices")
    table = b.weight((2 * window - 1) ** 2, heads, scale=0.5, name="table")
    bias = b.reshape(b.gather(table, indices, 0), [area, area, -1], (area, area, heads))
    return b.unsqueeze(b.transpose(bias, 2, 0, 1), 0)


def shift_mask(height: int, width: int, window: int, shift: int) -> Array:
    """Return [windows, area, area]: -100 between positions that the shift brought together from opposite edges."""
    regions = np.zeros((height, width))
    bounds = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for row, vertical in enumerate(bounds):
        for column, horizontal in enumerate(bounds):
            regions[vertical, horizontal] = 3 * row + column
    grid = regions.reshape(height // window, window, width // window, window)
    flat = grid.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(flat[:, None] != flat[:, :, None], -100.0, 0.0)


def merge_patches(b: GraphBuilder, x: Value) -> Value:
    """Halve height and width: four strided slices side by side, normalised, projected to twice the channels."""
    rows = [b.slice(x, 1, start, 2**31 - 1, 2) for start in (0, 1)]
    parts = [b.slice(row, 2, start, 2**31 - 1, 2) for start in (0, 1) for row in rows]
    return b.linear(layer_norm(b, b.concat(parts, 3)), 2 * x[3], bias=False)
