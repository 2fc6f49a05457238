"""All samples of ATen operators, one module a family."""

from __future__ import annotations

from rules import aten_rows_contraction, aten_rows_pointwise
from rules.aten_registry import ROWS

__all__ = ["ROWS"]

_FAMILIES = (aten_rows_contraction, aten_rows_pointwise)
