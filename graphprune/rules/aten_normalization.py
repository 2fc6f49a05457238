"""ATen's normalisation and softmax (algebra: :mod:`graphprune.rules.normalization`).

Unlike ONNX's, scales and shifts may be absent, and layer normalisation spells the extents that it looks at.
"""

from __future__ import annotations

from graphprune.axes import ONE
from graphprune.rules.call import Axes, Call, InputTarget, Mix
from graphprune.rules.normalization import group_norm, softmax, statistics_from
from graphprune.rules.table import Rule, bind


def batch_norm(call: Call) -> list[Axes | None]:
    """Statistics over batch and space in training, or where none are stored; saved ones may be empty."""
    training = call.attribute("training", False) or call.operand(3) is None
    channels = call.axes(0)[1].size
    saved = ["c" if sizes == (channels,) else "-" for sizes in call.result_sizes[1:]]
    text = f"n c *s, c?, c?, c?, c? -> {', '.join(['n c *s', *saved])}"
    return Rule(text, statistics="n *s" if training else "")(call)


def instance_norm(call: Call) -> list[Axes | None]:
    """Statistics over space, or stored ones."""
    own = call.attribute("use_input_stats", True)
    return Rule("n c *s, c?, c?, c?, c? -> n c *s", statistics="*s" if own else "")(call)


_STORED = "input weight bias running_mean running_var"
bind("aten.batch_norm aten.native_batch_norm aten._batch_norm_impl_index", batch_norm, _STORED)
bind("aten._native_batch_norm_legit aten._native_batch_norm_legit_functional", batch_norm, _STORED)
bind("aten.cudnn_batch_norm aten.miopen_batch_norm", batch_norm, _STORED)
bind("aten._batch_norm_with_update aten._batch_norm_with_update_functional", batch_norm, _STORED, training=True)
bind("aten._batch_norm_no_update aten._native_batch_norm_legit_no_training", batch_norm, _STORED, training=False)
bind("aten.instance_norm", instance_norm, _STORED)


def over_shape(call: Call) -> list[Axes | None]:
    """Statistics over the last dimensions, whose extents are spelled."""
    x, count = call.axes(0), len(call.elements(1))
    first = len(x) - count
    for index in range(count):
        if x[first + index] is not ONE:
            call.site(InputTarget(1, index), x[first + index])
    return statistics_from(call, first, (2, 3))


bind("aten.layer_norm aten.native_layer_norm", over_shape, "input normalized_shape weight bias")
bind("aten.rms_norm aten._fused_rms_norm", over_shape, "input normalized_shape weight")
bind("aten.group_norm", group_norm, "input weight bias")
bind(
    "aten.native_group_norm",
    Rule(
        "n! (g c) *s!, (g c)?, (g c)? -> n (g c) *s, n g, n g",
        sizes={"g": "group"},
        sites={"group": "g", "C": "g c"},
        statistics="c",
    ),
    "input weight bias",
)


def weight_norm(call: Call) -> list[Axes | None]:
    """Slices of ``v`` along ``dim`` are scaled to the norms ``g``; other dimensions are summed over."""
    v, g = call.axes(0), call.axes(1)
    at = int(call.attribute("dim", 0))
    places = range(len(v)) if at == -1 else [dim for dim in range(len(v)) if dim != at % len(v)]
    for dim in places:
        call.mixes.append(Mix("sum", v[dim], ((0, dim),)))
    for one, other in zip(v[len(v) - len(g) :], g, strict=True):
        call.broadcast(one, other)
    results: list[Axes | None] = [v, g]
    return results[: max(len(call.result_sizes), 1)]


def norm_except(call: Call) -> list[Axes | None]:
    """Norms of the slices along ``dim`` of all the other dimensions, which stay with one position."""
    v = call.axes(0)
    at = int(call.attribute("dim", 0))
    for dim, axis in enumerate(v):
        if at == -1 or dim != at % len(v):
            call.mixes.append(Mix("sum", axis, ((0, dim),)))
    return [() if at == -1 else tuple(axis if dim == at % len(v) else ONE for dim, axis in enumerate(v))]


def renorm(call: Call) -> list[Axes | None]:
    """Slices along ``dim`` are scaled down to a norm of the other dimensions."""
    x = call.axes(0)
    for dim, axis in enumerate(x):
        if dim != int(call.attribute("dim")) % len(x):
            call.mixes.append(Mix("sum", axis, ((0, dim),)))
    return [x]


bind("aten.norm_except_dim", norm_except, "v")
bind("aten.renorm", renorm, "self")
bind("aten._weight_norm aten._weight_norm_interface", weight_norm, "v g")
bind("aten.softmax aten._softmax aten.special_softmax", softmax, "self", axis="dim")
bind("aten.log_softmax aten._log_softmax aten.special_log_softmax", softmax, "self", axis="dim")
bind("aten._safe_softmax", softmax, "self", axis="dim")
