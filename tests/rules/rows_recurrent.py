"""Samples of recurrent layers."""

from __future__ import annotations

import numpy as np

from rules.registry import data, row

_S, _B, _I, _H = 4, 2, 3, 5
for op, gates, cell in (("LSTM", 4, True), ("GRU", 3, False), ("RNN", 1, False)):
    for directions, direction in ((1, "forward"), (1, "reverse"), (2, "bidirectional")):
        weights = ((directions, gates * _H, _I), (directions, gates * _H, _H), (directions, 2 * gates * _H))
        state = (directions, _B, _H)
        count = 3 if cell else 2
        row(op, (_S, _B, _I), *weights, results=count, hidden_size=_H, direction=direction)
        extra = (state, (directions, 3 * _H)) if cell else ()
        lengths = data([4, 2], np.int32)
        row(op, (_S, _B, _I), *weights, lengths, state, *extra, results=count, hidden_size=_H, direction=direction)
    row(op, (_S, _B, _I), *weights[:2], results=1, hidden_size=_H, direction=direction)
row("GRU", (_S, _B, _I), (1, 3 * _H, _I), (1, 3 * _H, _H), results=1, hidden_size=_H, linear_before_reset=1)
row(
    "RNN",
    (_B, _S, _I),
    (1, _H, _I),
    (1, _H, _H),
    None,
    None,
    (_B, 1, _H),
    results=2,
    hidden_size=_H,
    layout=1,
    by_onnx=True,
)
