"""Graphs of growing size, to see how time grows with the number of nodes."""

from __future__ import annotations

import onnx

from graphprune.models.reference.builder import GraphBuilder

__all__ = ["chain", "dense_concat"]


def chain(count: int, *, width: int = 8, seed: int = 0) -> onnx.ModelProto:
    """Build ``count`` 1x1 convolutions with ReLU, one after the other."""
    b = GraphBuilder(name=f"chain{count}", seed=seed)
    x = b.input("image", (1, 3, 4, 4))
    for _ in range(count):
        x = b.relu(b.conv(x, width, 1))
    b.output(b.conv(x, 3, 1), "last")
    return b.model()


def dense_concat(count: int, *, growth: int = 4, seed: int = 0) -> onnx.ModelProto:
    """Build ``count`` 1x1 convolutions, each reading the concatenation of the last result and all before it."""
    b = GraphBuilder(name=f"dense_concat{count}", seed=seed)
    x = b.conv(b.input("image", (1, 3, 4, 4)), growth, 1)
    for _ in range(count):
        x = b.concat([x, b.relu(b.conv(x, growth, 1))], 1)
    b.output(b.conv(x, 3, 1), "last")
    return b.model()
