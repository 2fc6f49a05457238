"""All samples of ATen operators, one module a family."""

from __future__ import annotations

from rules import (
    aten_rows_attention,
    aten_rows_contraction,
    aten_rows_cut,
    aten_rows_embedding,
    aten_rows_layout,
    aten_rows_lookup,
    aten_rows_normalization,
    aten_rows_pointwise,
    aten_rows_positions,
    aten_rows_recurrent,
    aten_rows_reduction,
    aten_rows_vision,
    aten_rows_windows,
)
from rules.aten_registry import ROWS

__all__ = ["ROWS"]

_FAMILIES = (
    aten_rows_attention,
    aten_rows_contraction,
    aten_rows_cut,
    aten_rows_embedding,
    aten_rows_layout,
    aten_rows_lookup,
    aten_rows_normalization,
    aten_rows_pointwise,
    aten_rows_positions,
    aten_rows_recurrent,
    aten_rows_reduction,
    aten_rows_vision,
    aten_rows_windows,
)
