"""Samples of attention."""

from __future__ import annotations

from typing import Any

import torch

from rules.aten_registry import of, row, rows

_q, _k, _v = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)
_name = "scaled_dot_product_attention"

row(_name, _q, _k, _v)
row(_name, _q, _k, _v, scale=0.4)
row(_name, _q, _k, _v, (4, 6), scale=0.4)
row(_name, _q, _k, _v, (2, 1, 1, 6), scale=0.4)
row(_name, _q, _k, _v, (3, 4, 6), scale=0.4)
row(_name, _q, _k, _v, (1, 3, 4, 6), scale=0.4)
row(_name, _q, _k, _v, of("bool", 4, 6) | torch.eye(4, 6, dtype=torch.bool), scale=0.4)
row(_name, _q, (2, 3, 4, 5), (2, 3, 4, 5), is_causal=True, scale=0.4)
row(_name, (2, 6, 4, 5), (2, 3, 4, 5), (2, 3, 4, 2), enable_gqa=True, scale=0.4)
row(_name, (2, 6, 4, 5), (2, 3, 4, 5), (2, 3, 4, 2), (6, 4, 4), enable_gqa=True, scale=0.4)
row(_name, (3, 4, 5), (3, 6, 5), (3, 6, 2), scale=0.4)
row(_name, (3, 4, 5), (3, 6, 5), (3, 6, 2), (4, 6), scale=0.4)
row(_name, (4, 5), (6, 5), (6, 2), scale=0.4)
row(_name, (2, 2, 3, 4, 5), (2, 2, 3, 6, 5), (2, 2, 3, 6, 2), scale=0.4)
row(_name, (2, 2, 3, 4, 5), (2, 2, 3, 6, 5), (2, 2, 3, 6, 2), (2, 1, 4, 6), scale=0.4)
row(_name, _q, (1, 3, 6, 5), (1, 3, 6, 2), scale=0.4)
row(_name, _q, (2, 1, 6, 5), (2, 1, 6, 2), scale=0.4)

_math = torch.ops.aten._scaled_dot_product_attention_math


def _flash(q: Any, k: Any, v: Any, dropout: float = 0.0, causal: bool = False, debug: bool = False, **rest: Any) -> Any:
    out, weights = _math(q, k, v, None, dropout, causal, **rest)
    return out, weights.sum(-1)


def _biased(q: Any, k: Any, v: Any, bias: Any, *_: Any, scale: float | None = None) -> Any:
    out, weights = _math(q, k, v, bias, scale=scale)
    return out, weights.sum(-1)


row("_scaled_dot_product_attention_math", _q, _k, _v, (4, 6), scale=0.4)
row("_scaled_dot_product_flash_attention_for_cpu", _q, _k, (2, 3, 6, 5), scale=0.4)
row("_scaled_dot_product_flash_attention_for_cpu", _q, _k, (2, 3, 6, 5), scale=0.4, attn_mask=of("float32", 4, 6))
row("_scaled_dot_product_flash_attention", _q, _k, (2, 3, 6, 5), scale=0.4, reference=_flash)
rows(
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention",
    (2, 3, 4, 5),
    (2, 3, 6, 5),
    (2, 3, 6, 2),
    (2, 3, 4, 6),
    True,
    scale=0.4,
    reference=_biased,
)
row("_scaled_dot_product_fused_attention_overrideable", _q, _k, _v, (3, 4, 6), scale=0.4, reference=_biased)
