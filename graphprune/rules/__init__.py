"""The operator tables. Importing this package fills the table; it is read-only afterwards."""

from __future__ import annotations

from graphprune.rules import contraction, cut, layout, lookup, normalization, pointwise, recurrent, reduction
from graphprune.rules.call import Call, Operand
from graphprune.rules.table import Binding, Rule, bind, lookup as find, table

__all__ = ["Binding", "Call", "Operand", "Rule", "bind", "find", "table"]

_FAMILIES = (contraction, cut, layout, lookup, normalization, pointwise, recurrent, reduction)
