"""Fourier transforms, stateful convolutions and running products along time.

A transform reads its axis as a whole; everything beside it passes through.
"""

from __future__ import annotations

from graphprune.rules.call import Axes, Call, Declined, Mix
from graphprune.rules.table import Rule, bind


def discrete_fourier(call: Call) -> list[Axes | None]:
    """One axis becomes frequencies; the last holds real and imaginary parts."""
    x, known = call.axes(0), call.result()
    if call.operand(2) is not None:
        at = call.integers(2)[0] % len(x)
    else:
        at = call.attribute("axis", 1 if call.opset < 20 else -2) % len(x)
    call.pin([x[at], x[-1]], "transformed as a whole")
    made = [known[dim] if known else None for dim in (at, len(x) - 1)]
    result = list(x)
    result[at], result[-1] = (call.fixed(size, "frequencies and their parts") for size in made)
    return [tuple(result)]


def cumulative_product(call: Call) -> list[Axes | None]:
    """Running products along an axis given by an operand: a removed position is not seen."""
    x = call.axes(0)
    at = call.integers(1)[0] % len(x)
    call.mixes.append(Mix("statistics", x[at], ((0, at),), ((0, at),)))
    return [x]


def causal_convolution(call: Call) -> list[Axes | None]:
    """A depthwise convolution over the past, whose last positions are carried along."""
    layout = set(call.attributes) - {"activation", "ndim", "dilation"}
    if any(call.attributes[name] for name in layout) or call.attribute("ndim", 1) != 1 or len(call.result_sizes) > 2:
        raise Declined("a layout of CausalConvWithState beside channels first")
    return Rule("b c l!, c 1 k!, c?, b c p!? -> b c l, b c p", macs=("b c l k",))(call)


bind("onnx.DFT", discrete_fourier, "input")
bind("onnx.STFT", Rule("b s! *d!, -, -?, -? -> b t f j"), "signal frame_step window frame_length")
bind("onnx.CumProd", cumulative_product, "x axis")
bind("onnx.CausalConvWithState com.microsoft.CausalConvWithState", causal_convolution, "input weight bias past_state")
