"""ATen's tables of vectors: rows are looked up by position, columns are an axis like any other."""

from __future__ import annotations

from graphprune.rules.call import Axes, Call
from graphprune.rules.positions import addressed
from graphprune.rules.table import Rule, bind


def embedding(call: Call) -> list[Axes | None]:
    """Rows at computed places, which stay unless the indices are known to be positions along such an axis."""
    rows, columns = call.axes(0)
    if call.attribute("padding_idx", -1) != -1 or not addressed(call, 1, rows):
        call.pin(rows, "this operator needs all its positions")
    return [(*call.axes(1), columns)]


bind("aten.embedding", embedding, "weight indices")


def _bags(call: Call) -> str:
    """Of the results, the places of maxima (mode 2) have columns too."""
    return f"v! c, *m!, b!, m! ? -> n c, -, -, {'n c' if call.attribute('mode', 0) == 2 else '-'}"


bind("aten.embedding_bag aten._embedding_bag", Rule(_bags), "weight indices offsets per_sample_weights")
