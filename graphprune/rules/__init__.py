"""The operator tables. Importing this package fills the table; it is read-only afterwards."""

from __future__ import annotations

from graphprune.rules import (
    aten_attention,
    aten_contraction,
    aten_creation,
    aten_cut,
    aten_embedding,
    aten_layout,
    aten_lookup,
    aten_normalization,
    aten_pointwise,
    aten_recurrent,
    aten_reduction,
    aten_signal,
    aten_vision,
    aten_windows,
    attention,
    contraction,
    cut,
    experts,
    layout,
    lookup,
    normalization,
    opaque,
    pointwise,
    quantization,
    recurrent,
    reduction,
    signal,
    vision,
)
from graphprune.rules.call import Call, Operand
from graphprune.rules.table import Binding, Rule, bind, table
from graphprune.rules.table import lookup as find

__all__ = ["Binding", "Call", "Operand", "Rule", "bind", "find", "table"]

_FAMILIES = (
    aten_attention,
    aten_contraction,
    aten_creation,
    aten_cut,
    aten_embedding,
    aten_layout,
    aten_lookup,
    aten_normalization,
    aten_pointwise,
    aten_recurrent,
    aten_reduction,
    aten_signal,
    aten_vision,
    aten_windows,
    attention,
    contraction,
    cut,
    experts,
    layout,
    lookup,
    normalization,
    opaque,
    pointwise,
    quantization,
    recurrent,
    reduction,
    signal,
    vision,
)
