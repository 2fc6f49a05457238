"""ATen's attention (algebra: :mod:`graphprune.rules.attention`).

Queries, keys and values have any number of batch dimensions, then heads, positions and the width of a head; a mask has
any rank and is aligned at the last dimension. With grouped queries each key head serves a run of query heads.
"""

from __future__ import annotations

from graphprune.rules.attention import grouped_heads
from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind

_ROLES = {"h": "head", "k": "head", "r": "query head", "d": "head width", "e": "head width"}


def attention(call: Call) -> list[Axes | None]:
    """Operands are queries, keys, values and a mask; the width is pinned where the scale is not spelled.

    Kernels of one width (``one_width``) take values as wide as queries.
    """
    rank = max(len(call.axes(number)) for number in range(3))
    grouped = bool(call.attribute("enable_gqa", False)) and rank > 2
    d = "d" if call.attribute("scale") else "d!"
    batch, heads, keys, sizes = ("*n", "h", "h", {}) if rank > 2 else ("", "", "", {})
    if grouped:
        heads, keys = "(k r)", "k"
        sizes = dict(grouped_heads(call.axes(0)[-3].size, call.axes(1)[-3].size))
    queries, scores = f"{batch} {heads} q!", f"{batch} {heads} q s"
    e = d if call.attribute("one_width", False) else "e"
    values = f"{batch} {keys} s! {e}"
    results = [f"{batch} {heads} q {e}", f"{batch} {heads} q", scores]
    if call.attribute("weights", False):
        results[1] = scores
    macs = tuple(f"{batch} {heads.strip('()')} q s {width.strip('!')}" for width in (d, e))
    rule = Rule(
        f"{queries} {d}, {batch} {keys} s! {d}, {values}, {_mask(call, heads)}? -> "
        + ", ".join(results[: min(max(len(call.result_sizes), 1), 2)]),
        sizes=sizes,
        macs=macs,
        summed={"d": (0,)},
        roles=_ROLES if rank > 3 else {},
    )
    return rule(call)


def _mask(call: Call, heads: str) -> str:
    """A mask or bias of scores, aligned at the last dimension."""
    operand = call.operand(3)
    if operand is None or operand.axes is None:
        return "-"
    dims = [f"{heads}~", "q!~", "s!~"] if heads else ["q!~", "s!~"]
    rank = len(operand.axes)
    return " ".join(dims[len(dims) - rank :]) if rank <= len(dims) else " ".join(["*n", *dims])


bind("aten.scaled_dot_product_attention", attention, "query key value attn_mask")
bind("aten._scaled_dot_product_attention_math", attention, "query key value attn_mask", weights=True)
bind("aten._scaled_dot_product_flash_attention_for_cpu", attention, "query key value attn_mask", one_width=True)
bind("aten._scaled_dot_product_flash_attention", attention, "query key value -", one_width=True)
bind(
    "aten._scaled_dot_product_efficient_attention aten._scaled_dot_product_cudnn_attention "
    "aten._scaled_dot_product_fused_attention_overrideable",
    attention,
    "query key value attn_bias",
)
