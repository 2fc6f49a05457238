"""Attention, rotary embedding and linear attention.

``y[b, h, q, e] = sum_s softmax_s(sum_d q[b, h, q, d] * k[b, h, s, d] * scale + bias) * v[b, h, s, e]``

Heads ``h`` do not see each other, and neither do the positions ``e`` of the values; the width ``d`` of queries and keys
is summed, so a removed position must be zero in one of the two. With fewer key heads ``k`` than query heads, each key
head serves ``r`` query heads: query heads are the product ``(k r)``. Positions of sequences are pinned, and so is the
width ``d`` where the scale is not spelled, because the default depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphprune.axes import Axis
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined
from graphprune.rules.table import Rule, bind

_ROLES = {"h": "head", "k": "head", "r": "query head", "d": "head width", "e": "head width"}
_MACS = ("b h q s d", "b h q s e")
_GROUPED_MACS = ("b k r q s d", "b k r q s e")


def _width(call: Call) -> str:
    """The name of the width of queries and keys; a scale of 0 stands for the default."""
    return "d" if call.attribute("scale", 0.0) else "d!"


def _rank(call: Call, index: int) -> int:
    operand = call.operand(index)
    return len(operand.axes) if operand is not None and operand.axes is not None else 0


def _bias(call: Call, index: int, heads: str) -> str:
    """A mask or bias of scores, aligned at the last dimension, which may be shorter than the keys."""
    dims = ["b~", f"{heads}~", "q!~", "u!~"]
    rank = _rank(call, index)
    return " ".join(dims[4 - rank :]) if 0 < rank <= 4 else "-"


def grouped_heads(queries: object, keys: object) -> Mapping[str, int]:
    """The number of key heads, and of query heads for each of them."""
    if not isinstance(queries, int) or not isinstance(keys, int) or keys < 1 or queries % keys:
        raise Declined("a number of heads that is not known")
    return {"k": keys, "r": queries // keys}


def attention(call: Call) -> list[Axes | None]:
    """The standard operator: heads packed in the last dimension (rank 3) or a dimension of their own (rank 4)."""
    packed, d = _rank(call, 0) == 3, _width(call)
    t = "s" if call.operand(4) is None else "t"
    if packed:
        heads = grouped_heads(call.attribute("q_num_heads"), call.attribute("kv_num_heads"))
    else:
        heads = grouped_heads(*(call.axes(index)[1].size for index in (0, 1)))
    operands = f"b q! (k r {d}), b s! (k d), b s! (k e)" if packed else f"b (k r) q! {d}, b k s! d, b k s! e"
    result = "b q (k r e)" if packed else "b (k r) q e"
    rule = Rule(
        f"{operands}, {_bias(call, 3, '(k r)')}?, b k p! d?, b k p! e?, b? "
        f"-> {result}, b k {t} d, b k {t} e, b (k r) q {t}",
        sizes=heads,
        sites={"q_num_heads": "k r", "kv_num_heads": "k"},
        macs=_GROUPED_MACS,
        summed={"d": (0,)},
        roles=_ROLES,
    )
    return rule(call)


bind("onnx.Attention", attention, "Q K V attn_mask past_key past_value")


# -- com.microsoft ----------------------------------------------------------------------------------------------------


def packed_attention(call: Call) -> list[Axes | None]:
    """One projection makes queries, keys and values: of equal thirds ``(3 h d)``, or of the sizes listed."""
    d = "d!" if call.attribute("do_rotary", 0) else _width(call)
    columns, e, sizes = f"(3 h {d})", "d", {"h": int(call.attribute("num_heads"))}
    listed = call.attribute("qkv_hidden_sizes")
    if listed:
        columns, e = f"[(h {d}) (h {d}) (h e)]", "e"
        sizes |= {"d": listed[0] // sizes["h"], "e": listed[2] // sizes["h"]}
    tokens, state, mask = "b! q!", f"2 b h p! {d}?, {_bias(call, 5, 'h')}?, -?", "-?"
    if call.op == "com.microsoft.PackedAttention":
        tokens, state, mask = "q!", f"-, {_bias(call, 5, 'h')}?", "-"
    rule = Rule(
        f"{tokens} i, i {columns}, {columns}?, {mask}, {state} -> {tokens} (h {e}), 2 b h t d",
        sizes=sizes,
        sites={"num_heads": "h"} | {f"qkv_hidden_sizes[{n}]": f"h {name}" for n, name in enumerate(("d", "d", e))},
        macs=("b q i h d", "b q i h d", f"b q i h {e}", "b h q q d", f"b h q q {e}"),
        summed={"d": (1, 2)},
        roles=_ROLES,
    )
    return rule(call)


def quantized_attention(call: Call) -> list[Axes | None]:
    """As packed attention, with integers for inputs and weights."""
    d = "d!" if call.attribute("do_rotary", 0) else _width(call)
    columns = f"(3 h {d})"
    rule = Rule(
        f"b! q! i, i {columns}, {columns}, -, {columns}~, -?, -?, {columns}~?, 2 b h p! {d}? -> b q (h d), 2 b h t d",
        sizes={"h": "num_heads"},
        sites={"num_heads": "h"},
        macs=("b q i h d 3", "b h q q d", "b h q q d"),
        summed={"i": (0,), "d": (1, 2)},
        neutral={0: 6, 1: 7},
        roles=_ROLES,
    )
    return rule(call)


_QUERIES = {3: "b! q! (h {d})", 5: "b! q! h 3 {d}"}
_KEYS = {0: "-?", 3: "b s! (h {d})", 4: "b h s! {d}", 5: "b s! h 2 {d}"}
_VALUES = {0: "-?", 3: "b s! (h {e})", 4: "b h s! {e}"}


def multi_head(call: Call) -> list[Axes | None]:
    """Queries, keys and values apart, or packed: ``b s h 3 d``, or keys and values ``b s h 2 d``."""
    ranks = [_rank(call, index) for index in range(3)]
    if ranks[0] not in _QUERIES or ranks[1] not in _KEYS or ranks[2] not in _VALUES:
        raise Declined("operands of unknown rank")
    d = _width(call)
    e = "e" if ranks[2] == 3 and call.operand(6) is None and "Decoder" not in call.op else "d"
    t = "t" if call.operand(6) is not None else "s" if ranks[1] else "q"
    columns = f"[(h {d}) (h {d}) (h {e})]?"
    query, key = _QUERIES[ranks[0]].format(d=d), _KEYS[ranks[1]].format(d=d)
    scores = _bias(call, 5, "h")
    past = f"b h p! {d}?, b h p! {e}?"
    if call.op == "com.microsoft.DecoderMaskedMultiHeadAttention":
        t, scores = "t", _bias(call, 4, "h")
        rest = f"-?, {scores}?, {past.replace('p', 't')}, -?, -?, -?, {columns}"
    else:
        rest = f"{columns}, -?, {scores}?, {past}, -?, -?"
    rule = Rule(
        f"{query}, {key}, {_VALUES[ranks[2]].format(e=e)}, {rest} -> b q (h {e}), b h {t} d, b h {t} {e}, b h q {t}",
        sizes={"h": "num_heads"},
        sites={"num_heads": "h"},
        macs=_MACS if e == "e" else (f"b h q {t} d", f"b h q {t} d"),
        summed={"d": (0, 10 if t == "t" and "Decoder" in call.op else 3)},
        roles=_ROLES,
    )
    return rule(call)


def packed_multi_head(call: Call) -> list[Axes | None]:
    """As multi-head attention, with all tokens of a batch in one dimension."""
    d = _width(call)
    e = "d" if _rank(call, 0) == 4 else "e"
    operands = f"q! h 3 {d}, -?, -?" if e == "d" else f"q! (h {d}), q! (h {d}), q! (h e)"
    rule = Rule(
        f"{operands}, [(h {d}) (h {d}) (h {e})]?, -, -, {_bias(call, 6, 'h')}? -> q (h {e})",
        sizes={"h": "num_heads"},
        sites={"num_heads": "h"},
        macs=("h q q d", f"h q q {e}"),
        summed={"d": (0, 3)},
        roles=_ROLES,
    )
    return rule(call)


def grouped_query(call: Call) -> list[Axes | None]:
    """Query heads in groups that share a key head; perhaps packed, rotated by cosines and sines, and normalised.

    Keys and values have one width; its kernels take multiples of 8 (16 where rotated), which are its units.
    """
    heads = grouped_heads(call.attribute("num_heads"), call.attribute("kv_num_heads"))
    rotated = bool(call.attribute("do_rotary", 0))
    cosines = call.axes(7)[-1].size if rotated else 0
    packed = call.operand(1) is None
    columns = heads["k"] * heads["r"] + (2 * heads["k"] if packed else 0)
    width = call.axes(0)[-1].size
    if not isinstance(width, int) or width % columns:
        raise Declined("a width that does not fit the heads")
    width //= columns
    whole = cosines * 2 == width if rotated else True
    fixed = "" if call.attribute("scale", 0.0) and whole and call.operand(14) is None else "!"
    turned = call.attribute("rotary_interleaved", 0)
    if not rotated:
        d, w = f"m{fixed} 8", ""
    elif turned:
        d, w = f"m{fixed} 8 2", "m 8"
    else:
        d, w = f"2 m{fixed} 8", "m 8"
    unit = 16 if rotated else 8
    if width % unit:
        d, w = "d!", "w!"
    elif rotated and not whole:
        w = "w!"
    query = f"b! s! [(k r {d}) (k {d}) (k {d})]" if packed else f"b! s! (k r {d})"
    keys = "-?, -?" if packed else f"b s! (k {d}), b s! (k {d})"
    state, caches = f"b k p! ({d})?, b k p! ({d})?", f"c! ({w})?, c! ({w})?" if rotated else "-?, -?"
    scores = _bias(call, 10, "(k r)")
    rule = Rule(
        f"{query}, {keys}, {state}, -?, -?, {caches}, -?, {scores}?, (k r)?, -?, -?, "
        f"({d})?, ({d})?, -? "
        f"-> b s (k r {d}), b k t ({d}), b k t ({d}), -",
        sizes={**heads, "m": width // unit, "d": width},
        sites={"num_heads": "k r", "kv_num_heads": "k"},
        macs=(f"b k r s s {d.replace('!', '')}",) * 2,
        summed={"m": (0,)},
        roles=_ROLES | {"m": "head width"},
    )
    return rule(call)


_DOMAIN = "com.microsoft."
bind(f"{_DOMAIN}Attention", packed_attention, "input weights bias mask_index past attention_bias")
bind(f"{_DOMAIN}PackedAttention", packed_attention, "input weights bias")
bind(f"{_DOMAIN}QAttention", quantized_attention, "input weight bias input_scale weight_scale mask_index")
bind(f"{_DOMAIN}MultiHeadAttention", multi_head, "query key value bias key_padding_mask attention_bias past_key")
bind(f"{_DOMAIN}DecoderMaskedMultiHeadAttention", multi_head, "query key value mask_index attention_bias past_key")
bind(f"{_DOMAIN}PackedMultiHeadAttention", packed_multi_head, "query key value bias token_offset")
bind(f"{_DOMAIN}GroupQueryAttention", grouped_query, "query key value past_key past_value seqlens_k")


# -- rotation and linear attention ------------------------------------------------------------------------------------


def _rotary(call: Call, cosines: int, sines: int, positions: int) -> list[Axes | None]:
    """Pairs of positions are rotated: the two halves of a head, or neighbours. Pairs stay pairs.

    With ``rotary_embedding_dim`` only the first positions of a head are rotated.
    """
    x = call.axes(0)
    last = x[-1].size
    half = call.axes(cosines)[-1]
    part = int(call.attribute("rotary_embedding_dim", 0))
    heads = int(call.attribute("num_heads", 0))
    if len(x) == 4:
        width, count = last, None
    elif isinstance(last, int) and isinstance(half.size, int):
        width = last // heads if heads else 2 * half.size
        count = call.space.leaf(last // width)
    else:
        raise Declined("a head of unknown width")
    if not isinstance(width, int) or half.size != (part or width) // 2 or half.size == 0:
        raise Declined("a head of unknown width")
    head: Axis = x[-1]
    if count is not None:
        head = call.space.leaf(width)
        call.unify(x[-1], call.space.product([count, head]), "heads of a rotary embedding")
    turned, _ = call.space.split(head, part or width)
    two = call.fixed(2, "a pair that is rotated")
    pair = [half, two] if call.attribute("interleaved", 0) else [two, half]
    call.unify(turned, call.space.product(pair), "pairs that are rotated")
    call.unify(half, call.axes(sines)[-1])
    call.pin([x[0], x[-2] if len(x) == 4 else x[1]], "its sequences have positions")
    for index in (cosines, sines):
        call.pin(call.axes(index)[:-1], "looked up by position")
    if call.operand(positions) is not None:
        call.pin(call.axes(positions), "positions")
    if part:
        call.site(AttributeTarget("rotary_embedding_dim"), turned)
    if heads and count is not None:
        call.site(AttributeTarget("num_heads"), count)
        call.roles.append((count, "head"))
    call.roles.append((half, "head width"))
    return [x]


def rotary(call: Call) -> list[Axes | None]:
    """The standard operator."""
    return _rotary(call, 1, 2, 3)


def rotary_contrib(call: Call) -> list[Axes | None]:
    """The operator of ONNX Runtime, with its operands in another order."""
    return _rotary(call, 2, 3, 1)


def linear_attention(call: Call) -> list[Axes | None]:
    """A state ``d e`` for each key head, updated step by step; a delta rule reads it by the key, so keys are masked."""
    if call.attribute("state_window", 0):
        raise Declined("a window of states")
    d = _width(call)
    heads = grouped_heads(call.attribute("q_num_heads"), call.attribute("kv_num_heads"))
    decay, beta = call.operand(4), call.operand(5)
    scalar = decay is not None and decay.axes is not None and decay.axes[-1].size == heads["k"]
    rates = "1" if beta is not None and beta.axes is not None and beta.axes[-1].size == 1 else "k"
    rule = Rule(
        f"b t! (k r {d}), b t! (k d), b t! (k e), b k d e?, b t! {'k' if scalar else '(k d)'}?, b t! {rates}? "
        "-> b t (k r e), b k d e",
        sizes=heads,
        sites={"q_num_heads": "k r", "kv_num_heads": "k"},
        macs=("b t k d e 2", "b t k r d e"),
        summed={"d": (0, 1)},
        roles=_ROLES,
    )
    return rule(call)


bind("onnx.RotaryEmbedding", rotary, "X cos_cache sin_cache position_ids")
bind(f"{_DOMAIN}RotaryEmbedding", rotary_contrib, "input position_ids cos_cache sin_cache")
bind(f"onnx.LinearAttention {_DOMAIN}LinearAttention", linear_attention, "query key value past_state decay beta")
