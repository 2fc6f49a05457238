"""Samples of tables of vectors."""

from __future__ import annotations

from rules.aten_registry import data, row, rows

row("embedding", (5, 3), data([[1, 4], [0, 2]]))
row("embedding", (5, 3), data(2), 0)
for _mode in (0, 1):
    rows("embedding_bag _embedding_bag", (5, 3), data([1, 4, 0, 2]), data([0, 2]), False, _mode, read=(0,))
row("embedding_bag", (5, 3), data([1, 4, 0, 2]), data([0, 2]), False, 2)
row("embedding_bag", (5, 3), data([1, 4, 0, 2]), data([0, 2]), False, 0, False, (4,), read=(0,))
