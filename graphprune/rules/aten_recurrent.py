"""ATen's recurrent layers (algebra: :mod:`graphprune.rules.recurrent`): all layers and directions in one call.

The states of all layers and directions are stacked in one tensor, so that they share the axis of hidden units; weights
tell its extent. Directions follow one another in a result and in the next layer's inputs: ``(2 h)``.
"""

from __future__ import annotations

from collections.abc import Callable

from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind


def layers(gates: int, states: int) -> Callable[[Call], list[Axes | None]]:
    """The rule of a network with so many gates and states."""

    def apply(call: Call) -> list[Axes | None]:
        directions = 2 if call.attribute("bidirectional", False) else 1
        cells = int(call.attribute("num_layers")) * directions
        biased = bool(call.attribute("has_biases", True))
        given = (len(call.operands) - 1 - states) // cells
        projected = given == (5 if biased else 3)
        y, h = ("r", "h") if projected else ("h", "h")
        whole = f"(2 {y})" if directions == 2 else y
        batch = "b" if len(call.axes(0)) == 3 else ""
        steps = f"{batch} s!" if call.attribute("batch_first", False) else f"s! {batch}"
        texts = [f"{steps} i", f"d! {batch} {y}", *[f"d! {batch} {h}"] * (states - 1)]
        summed: dict[str, tuple[int, ...]] = {y: (), h: ()}
        macs = []
        for cell in range(cells):
            at = len(texts)
            source = "i" if cell < directions else whole
            texts += [f"({gates} h) {source}", f"({gates} h) {y}", *[f"({gates} h)"] * (2 * biased)]
            summed[y] += (at + 1,) if source == "i" else (at, at + 1)
            macs += [f"s {batch} h {source.strip('()')} {gates}", f"s {batch} h {y} {gates}"]
            if projected:
                summed[h] += (len(texts),)
                texts.append("r h")
                macs.append(f"s {batch} r h")
        results = [f"{steps} {whole}", *texts[1 : 1 + states]]
        rule = Rule(
            f"{', '.join(texts)} -> {', '.join(results)}".replace("-> " + steps, "-> " + steps.replace("!", "")),
            sizes={"h": lambda call: int(call.sizes(1 + states)[0]) // gates},  # type: ignore[arg-type]
            macs=tuple(macs),
            summed=summed,
            roles={"h": "hidden unit", "r": "projected unit"},
        )
        return rule(call)

    return apply


def cell(gates: int, states: int) -> Rule:
    """The rule of one step."""
    state = ", ".join(["b h"] * states)
    return Rule(
        f"b i, {state}, ({gates} h) i, ({gates} h) h, ({gates} h)?, ({gates} h)? -> {state}",
        macs=(f"b i h {gates}", f"b h h {gates}"),
        summed={"h": (states + 2,)},
        roles={"h": "hidden unit"},
    )


bind("aten.lstm.input", layers(4, 2), "input hx params")
bind("aten.gru.input", layers(3, 1), "input hx params")
bind("aten.rnn_relu.input aten.rnn_tanh.input", layers(1, 1), "input hx params")
bind("aten.lstm_cell", cell(4, 2), "input hx w_ih w_hh b_ih b_hh")
bind("aten.gru_cell", cell(3, 1), "input hx w_ih w_hh b_ih b_hh")
bind("aten.rnn_relu_cell aten.rnn_tanh_cell", cell(1, 1), "input hx w_ih w_hh b_ih b_hh")
