"""ATen's tables of vectors: rows are looked up by position, columns are an axis like any other."""

from __future__ import annotations

from graphprune.rules.call import Call
from graphprune.rules.table import Rule, bind

bind("aten.embedding", Rule("v! c, *n -> *n c"), "weight indices")


def _bags(call: Call) -> str:
    """Of the results, the places of maxima (mode 2) have columns too."""
    return f"v! c, *m!, b!, m! ? -> n c, -, -, {'n c' if call.attribute('mode', 0) == 2 else '-'}"


bind("aten.embedding_bag aten._embedding_bag", Rule(_bags), "weight indices offsets per_sample_weights")
