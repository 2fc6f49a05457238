"""Mixtures of experts: ``y = sum_e route[t, e] * w2[e] @ f(w1[e] @ x)`` over the best ``k`` experts of each token.

Hidden units ``f`` of the experts are summed, and the model's channels ``c`` are summed going in and kept coming out.
Removing an expert leaves the routing to the others: a statistic. As many as each token takes must stay.
"""

from __future__ import annotations

from graphprune.rules.call import Axes, Call, Declined
from graphprune.rules.table import Rule, bind


def _rows(call: Call, hidden: str) -> str:
    """The rows of the first weights: hidden units, or gates and values, in pairs or one half after the other."""
    fusion = call.attribute("swiglu_fusion", 0) if call.attribute("activation_type", "relu") == "swiglu" else 0
    if not fusion:
        return f"({hidden})"
    return f"({hidden} 2)" if fusion == 1 else f"(2 {hidden})"


def _routed(call: Call, rule: Rule) -> list[Axes | None]:
    """Apply ``rule``; as many experts stay as each token takes."""
    results = rule(call)
    call.least.append((call.axes(1)[1], int(call.attribute("k", 1))))
    return results


def experts(call: Call) -> list[Axes | None]:
    """Weights as numbers."""
    rows = _rows(call, "f")
    rule = Rule(
        f"*n! c, t! e, e {rows} c, e {rows}?, e c f, e c?, e f c?, e f? -> *n c",
        macs=(f"t c f {call.attribute('k', 1)} 2",),
        statistics="e",
        summed={"c": (0,), "f": (4,)},
        roles={"e": "expert", "f": "ffn"},
    )
    return _routed(call, rule)


def quantized_experts(call: Call) -> list[Axes | None]:
    """Weights of a few bits, packed along their last dimension: what shares a byte or a scale is a unit."""
    block, bits = int(call.attribute("block_size", 0)), int(call.attribute("expert_weight_bits", 4))
    if call.attribute("quant_type", "int") != "int" or any(call.operand(index) is not None for index in range(11, 21)):
        raise Declined("weights with zero points or in a floating format")
    if any(f"fc{number}_expert_weight_bits" in call.attributes for number in (1, 2, 3)):
        raise Declined("weights of different numbers of bits")
    size = block or 8 // bits
    if call.attribute("weights_prepacked", 0) == 1 or size * bits % 8:
        raise Declined("weights in a format of one processor")
    stored = size * bits // 8
    rows = _rows(call, f"f {size}")
    c, f = f"(c {size})", f"(f {size})"
    first, second, third = (
        f"e {dims} {blocks if block else ''}?" for dims, blocks in ((rows, "c"), (c, "f"), (f, "c"))
    )
    rule = Rule(
        f"*n! {c}, t! e, e {rows} (c {stored}), {first}, e {rows}?, e {c} (f {stored}), {second}, e {c}?, "
        f"e {f} (c {stored})?, {third}, e {f}? -> *n {c}",
        macs=(f"t c {size} f {size} {call.attribute('k', 1)} 2",),
        statistics="e",
        summed={"c": (0,), "f": (3, 4)},
        roles={"e": "expert", "f": "ffn"},
    )
    return _routed(call, rule)


bind("com.microsoft.MoE", experts, "input router_probs fc1_experts_weights fc1_experts_bias fc2_experts_weights")
bind("com.microsoft.QMoE", quantized_experts, "input router_probs fc1_experts_weights fc1_scales fc1_experts_bias")
