"""Samples of recurrent layers."""

from __future__ import annotations

from typing import Any

from rules.aten_registry import row, rows


def _params(gates: int, layers: int, directions: int, biased: bool = True, projected: int = 0) -> list[Any]:
    """Weights of layers of 3 hidden units over 4 inputs, as ATen lists them."""
    found: list[Any] = []
    width = projected or 3
    for layer in range(layers):
        for _ in range(directions):
            source = 4 if layer == 0 else directions * width
            found += [(gates * 3, source), (gates * 3, width)]
            found += [(gates * 3,), (gates * 3,)] if biased else []
            found += [(projected, 3)] if projected else []
    return found


_x = (5, 2, 4)
row("lstm", _x, [(1, 2, 3), (1, 2, 3)], _params(4, 1, 1), True, 1, 0.0, False, False, False)
row("lstm", _x, [(2, 2, 3), (2, 2, 3)], _params(4, 1, 2), True, 1, 0.0, False, True, False)
row("lstm", _x, [(2, 2, 3), (2, 2, 3)], _params(4, 2, 1, False), False, 2, 0.0, False, False, False)
row("lstm", (2, 5, 4), [(4, 2, 3), (4, 2, 3)], _params(4, 2, 2), True, 2, 0.0, False, True, True)
row("lstm", _x, [(1, 2, 2), (1, 2, 3)], _params(4, 1, 1, True, 2), True, 1, 0.0, False, False, False)
row("lstm", _x, [(4, 2, 2), (4, 2, 3)], _params(4, 2, 2, False, 2), False, 2, 0.0, False, True, False)
row("gru", _x, (1, 2, 3), _params(3, 1, 1), True, 1, 0.0, False, False, False)
row("gru", (2, 5, 4), (4, 2, 3), _params(3, 2, 2), True, 2, 0.0, False, True, True)
rows("rnn_tanh rnn_relu", _x, (2, 2, 3), _params(1, 2, 1), True, 2, 0.0, False, False, False)
row("rnn_tanh", (5, 4), (1, 3), _params(1, 1, 1), True, 1, 0.0, False, False, False)
row("lstm_cell", (2, 4), [(2, 3), (2, 3)], (12, 4), (12, 3), (12,), (12,))
row("lstm_cell", (2, 4), [(2, 3), (2, 3)], (12, 4), (12, 3))
row("gru_cell", (2, 4), (2, 3), (9, 4), (9, 3), (9,), (9,))
rows("rnn_tanh_cell rnn_relu_cell", (2, 4), (2, 3), (3, 4), (3, 3), (3,), (3,))
