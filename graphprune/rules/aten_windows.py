"""ATen's pooling and resizing: space is the last one to three dimensions, and all dimensions before it are left alone.

Windows mix neighbours, so that space keeps all its positions; where extents stay, the result has them too.
"""

from __future__ import annotations

from graphprune.axes import Axis
from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind
from graphprune.rules.windows import keeps_extents, numbers

_REASON = "a size of this operator's own"


def over_space(call: Call) -> list[Axes | None]:
    """Operands share all dimensions but the last ``space``, which are the operator's own in results.

    Places of maxima count over space, of which nothing goes.
    """
    count = int(call.attribute("space"))
    first = call.axes(0)
    at = len(first) - count
    for number, operand in enumerate(call.operands):
        if operand is not None:
            own = call.axes(number)
            call.pin(own[at:], "space")
            for one, other in zip(first[:at], own[:at], strict=True):
                call.unify(one, other)
    kernel = call.attribute("kernel_shape")
    kept = kernel is not None and keeps_extents(call, numbers(kernel, count))
    results: list[Axes | None] = []
    for index in range(max(len(call.result_sizes), 1)):
        stated = call.result(index)
        space: list[Axis] = list(first[at:])
        if not kept:
            space = [call.fixed(None if stated is None else stated[dim], _REASON) for dim in range(at, len(first))]
        results.append((*first[:at], *space))
    return results


_WINDOW = {"kernel_shape": "kernel_size", "strides": "stride", "pads": "padding"}
for _count in (1, 2, 3):
    bind(
        f"aten.max_pool{_count}d aten.max_pool{_count}d_with_indices",
        over_space,
        "self",
        space=_count,
        dilations="dilation",
        **_WINDOW,
    )
    bind(f"aten.avg_pool{_count}d", over_space, "self", space=_count, **_WINDOW)
    bind(f"aten.adaptive_avg_pool{_count}d aten.adaptive_max_pool{_count}d", over_space, "self", space=_count)
    bind(f"aten.upsample_nearest{_count}d aten._upsample_nearest_exact{_count}d", over_space, "self", space=_count)
    bind(
        f"aten.upsample_nearest{_count}d.vec aten._upsample_nearest_exact{_count}d.vec",
        over_space,
        "input",
        space=_count,
    )
bind("aten._adaptive_avg_pool2d", over_space, "self", space=2)
bind("aten._adaptive_avg_pool3d", over_space, "self", space=3)
bind("aten.fractional_max_pool2d", Rule("*n c h! w!, n! c z! -> *n c y x, *n c y x"), "self random_samples")
bind("aten.fractional_max_pool3d", Rule("*n c d! h! w!, n! c z! -> *n c z y x, *n c z y x"), "self random_samples")
_RESIZED = {
    1: "upsample_linear1d",
    2: "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa",
    3: "upsample_trilinear3d",
}
for _count, _names in _RESIZED.items():
    for _name in _names.split():
        bind(f"aten.{_name}", over_space, "self", space=_count)
        bind(f"aten.{_name}.vec", over_space, "input", space=_count)
