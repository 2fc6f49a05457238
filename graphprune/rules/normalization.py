"""Normalisation.

Batch and instance normalisation work position by position of the channel axis. Layer, RMS, group and local response
normalisation take statistics *over* it: legal to cut, but the result is that of statistics over the kept positions,
not that of zeroing.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphprune.rules.call import Axes, Call, Mix
from graphprune.rules.table import Rule, bind

BATCH_NORM = Rule("n c *s, c, c, c, c -> n c *s, c, c, c, c")
BATCH_NORM_TRAINING = Rule("n c *s, c, c, c, c -> n c *s, c, c, c, c", statistics="n *s")
INSTANCE_NORM = Rule("n c *s, c, c -> n c *s", statistics="*s")
LOCAL_RESPONSE_NORM = Rule("n c *s -> n c *s", statistics="c")


def batch_norm(call: Call) -> list[Axes | None]:
    """Uses stored statistics, unless ``training_mode`` takes them over batch and space."""
    return (BATCH_NORM_TRAINING if call.attribute("training_mode", 0) else BATCH_NORM)(call)


bind("onnx.BatchNormalization", batch_norm, "X scale B input_mean input_var")
bind("onnx.InstanceNormalization", INSTANCE_NORM, "input scale B")
bind("onnx.LRN", LOCAL_RESPONSE_NORM, "X")


def over_last(call: Call) -> list[Axes | None]:
    """Statistics over the dimensions from ``axis`` on; scale and bias are aligned at the last dimension."""
    return statistics_from(call, call.attribute("axis", -1) % len(call.axes(0)), range(1, len(call.operands)))


def statistics_from(call: Call, first: int, scales: Iterable[int]) -> list[Axes | None]:
    """Statistics over the dimensions from ``first`` on, which the operands ``scales`` scale and shift."""
    x = call.axes(0)
    for number in scales:
        if call.operand(number) is not None:
            for axis, own in zip(reversed(x), reversed(call.axes(number)), strict=False):
                call.broadcast(axis, own)
    scaled = [(number, call.axes(number)) for number in (0, *scales) if call.operand(number) is not None]
    for dim in range(first, len(x)):
        back = len(x) - dim
        places = tuple((number, len(own) - back) for number, own in scaled if len(own) >= back and own[-back].size != 1)
        call.mixes.append(Mix("statistics", x[dim], places, ((0, dim),)))
    reduced = tuple(axis if dim < first else call.space.leaf(1) for dim, axis in enumerate(x))
    results: list[Axes | None] = [x, reduced, reduced]
    return results[: max(len(call.result_sizes), 1)]


bind("onnx.LayerNormalization com.microsoft.LayerNormalization", over_last, "X Scale B")
bind("onnx.RMSNormalization", over_last, "X scale")
bind("onnx.SimplifiedLayerNormalization com.microsoft.SimplifiedLayerNormalization", over_last)


def _groups(call: Call) -> int:
    return int(call.attribute("num_groups", call.attribute("groups", 1)))


def group_norm(call: Call) -> list[Axes | None]:
    """Channels are groups times members; statistics over members and space. Since opset 21 scale is per channel."""
    per_group = call.opset < 21
    scale = "g" if per_group else "(g c)"
    rule = Rule(
        f"n (g c) *s, {scale}?, {scale}? -> n (g c) *s",
        sizes={"g": _groups},
        sites={"num_groups": "g"},
        statistics="c *s",
    )
    return rule(call)


bind("onnx.GroupNormalization", group_norm, "X scale bias")


def group_norm_last(call: Call) -> list[Axes | None]:
    """``GroupNorm``: channels last unless told; a skip may lack space."""
    last = call.attribute("channels_last", 1)
    x = "n *s (g c)" if last else "n (g c) *s"
    skip = call.operand(3)
    narrow = skip is not None and skip.axes is not None and len(skip.axes) == 2
    rule = Rule(
        f"{x}, (g c), (g c), {'n (g c)' if narrow else x}?, (g c)? -> {x}, {x}",
        sizes={"g": _groups},
        sites={"groups": "g"},
        statistics="c *s",
    )
    return rule(call)


bind("com.microsoft.GroupNorm", group_norm_last, "X gamma beta")
bind("com.microsoft.SkipGroupNorm", group_norm_last, "X gamma beta skip bias")
SKIP_LAYER_NORM = Rule("*n c, *n c, c, c?, c? -> *n c, *n 1, *n 1, *n c", statistics="c")
SKIP_RMS_NORM = Rule("*n c, *n c, c, c? -> *n c, *n 1, *n 1, *n c", statistics="c")
bind("com.microsoft.SkipLayerNormalization", SKIP_LAYER_NORM, "input skip gamma beta bias")
bind("com.microsoft.SkipSimplifiedLayerNormalization", SKIP_RMS_NORM, "input skip gamma bias")


def mean_variance(call: Call) -> list[Axes | None]:
    """Statistics over the dimensions ``axes``."""
    x = call.axes(0)
    for dim in sorted(dim % len(x) for dim in call.attribute("axes", (0, 2, 3))):
        call.mixes.append(Mix("statistics", x[dim], ((0, dim),), ((0, dim),)))
    return [x]


bind(
    "com.microsoft.EmbedLayerNormalization",
    Rule("b s!, b s?, v! c, p! c, q! c?, c, c, b s?, b s? -> b s c, b, b s c", statistics="c"),
    "input_ids segment_ids word_embedding position_embedding segment_embedding gamma beta mask position_ids",
)
bind(
    "com.microsoft.GatedRMSNorm",
    Rule("*n (h c), c, *n (h c) -> *n (h c)", sizes={"c": lambda call: int(call.sizes(1)[0])}, statistics="c"),  # type: ignore[arg-type]
    "X scale gate",
)
bind("onnx.MeanVarianceNormalization", mean_variance, "X")


def lp_normalization(call: Call) -> list[Axes | None]:
    """``x / norm(x)`` along one axis: zeros leave a norm as it is, yet the removed positions must be zero."""
    x = call.axes(0)
    dim = call.attribute("axis", -1) % len(x)
    call.mixes.append(Mix("sum", x[dim], ((0, dim),)))
    return [x]


def softmax(call: Call) -> list[Axes | None]:
    """Statistics over one axis; before opset 13 over all dimensions from ``axis`` (default 1) on."""
    x = call.axes(0)
    if call.opset >= 13:
        dims = [call.attribute("axis", -1) % len(x)]
    else:
        first = call.attribute("axis", 1)
        dims = list(range(first + len(x) if first < 0 else first, len(x)))
    for dim in dims:
        call.mixes.append(Mix("statistics", x[dim], ((0, dim),), ((0, dim),)))
    return [x]


bind("onnx.LpNormalization", lp_normalization, "input")
bind("onnx.Softmax onnx.LogSoftmax onnx.Hardmax", softmax)
