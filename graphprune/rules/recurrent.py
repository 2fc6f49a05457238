"""Recurrent layers: the gates of a hidden unit stand together, and the recurrence feeds the unit back.

``R`` multiplies the hidden state of the step before; the columns of removed units must be zero there.
"""

from __future__ import annotations

from collections.abc import Callable

from graphprune.rules.call import Axes, Call, Declined
from graphprune.rules.table import Rule, bind

__all__ = ["recurrent"]


def recurrent(gates: int, cell: bool) -> Callable[[Call], list[Axes | None]]:
    """The rule of a recurrent operator with so many gates, with or without a cell state."""
    biases = 2 * gates

    def apply(call: Call) -> list[Axes | None]:
        batch_first = bool(call.attribute("layout", 0))
        x, y = ("b s! i", "b s d! h") if batch_first else ("s! b i", "s d! b h")
        state = "b~ d! h" if batch_first else "d! b~ h"
        extra = f", {state}?, d! (3 h)?" if cell else ""
        results = f"{y}, {state.replace('~', '')}" + (f", {state.replace('~', '')}" if cell else "")
        text = f"{x}, d! ({gates} h) i, d! ({gates} h) h, d! ({biases} h)?, b?, {state}?{extra} -> {results}"
        if call.operand(0) is None:
            raise Declined("no input")
        rule = Rule(
            text,
            sizes={"h": "hidden_size"},
            sites={"hidden_size": "h"},
            macs=(f"s b d i h {gates}", f"s b d h h {gates}"),
            summed={"h": (2,)},
            roles={"h": "hidden unit"},
        )
        return rule(call)

    return apply


bind("onnx.LSTM", recurrent(4, cell=True), "X W R B sequence_lens initial_h initial_c P")
bind("onnx.GRU", recurrent(3, cell=False), "X W R B sequence_lens initial_h")
bind("onnx.RNN", recurrent(1, cell=False), "X W R B sequence_lens initial_h")
