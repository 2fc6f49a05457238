"""A sequence tagger with bidirectional LSTM layers."""

from __future__ import annotations

import numpy as np
import onnx

from graphprune.models.reference.builder import GraphBuilder, Value

__all__ = ["lstm_tagger"]


def lstm_tagger(
    *, tiny: bool = False, width: int | None = None, depth: int = 2, tags: int = 17, seed: int = 0
) -> onnx.ModelProto:
    """Build an embedding, ``depth`` bidirectional LSTM layers, and a linear layer for each token's tag."""
    b = GraphBuilder(name="lstm_tagger", seed=seed)
    width, vocabulary = width or (8 if tiny else 256), 50 if tiny else 10000
    ids = b.input("tokens", ("batch", "length"), np.int64)
    x = b.transpose(b.gather(b.weight(vocabulary, width, scale=1.0, name="embed"), ids, 0), 1, 0, 2)
    for layer in range(depth):
        with b.scope(f"lstm{layer}"):
            x = bidirectional(b, x, width, b.shape_of(ids, 0))
    b.output(b.linear(b.transpose(x, 1, 0, 2), tags), "tags")
    return b.model()


def bidirectional(b: GraphBuilder, x: Value, hidden: int, batch: Value) -> Value:
    """Run an LSTM both ways over [t, n, c] from a zero state; return [t, n, 2*hidden]."""
    shape = b.concat([b.ints(2), batch, b.ints(hidden)], 0)
    state = b.op("ConstantOfShape", shape, shape=(2, "batch", hidden))
    y = b.op(
        "LSTM",
        x,
        b.weight(2, 4 * hidden, x[2], scale=x[2] ** -0.5),
        b.weight(2, 4 * hidden, hidden, scale=hidden**-0.5),
        b.weight(2, 8 * hidden, scale=0.1, name="bias"),
        None,
        state,
        state,
        shape=(x.shape[0], 2, x.shape[1], hidden),
        hidden_size=hidden,
        direction="bidirectional",
    )
    return b.reshape(b.transpose(y, 0, 2, 1, 3), [0, 0, -1], (*x.shape[:2], 2 * hidden))
