"""All samples, one module a family."""

from __future__ import annotations

from rules import (
    rows_attention,
    rows_contraction,
    rows_experts,
    rows_layout,
    rows_lookup,
    rows_normalization,
    rows_pointwise,
    rows_positions,
    rows_quantization,
    rows_recurrent,
    rows_reduction,
    rows_vision,
)
from rules.registry import ROWS

__all__ = ["ROWS"]

_FAMILIES = (
    rows_attention,
    rows_contraction,
    rows_experts,
    rows_layout,
    rows_lookup,
    rows_normalization,
    rows_pointwise,
    rows_positions,
    rows_quantization,
    rows_recurrent,
    rows_reduction,
    rows_vision,
)
