"""Samples of operands that hold positions along an axis of 5."""

from __future__ import annotations

import numpy as np

from rules.registry import const, data, of, places, row, rows

_best = places([[1, 3], [0, 4]], 5)
_flat = places([4, 1, 1, 0], 5)

# addressing
row("Gather", (5, 3), _best)
row("Gather", (2, 5), _best, axis=1)
row("Gather", (6, 3), _best)
row("GatherElements", (2, 5), _best, axis=1)
row("ScatterElements", (2, 5), _best, (2, 2), axis=1)
row("ScatterElements", (2, 5), _best, (2, 2), axis=1, reduction="add")
row("ScatterElements", of(np.int64, 2, 5), data([[1, 3], [0, 4]]), _best, axis=1)
row("OneHot", _best, const([5]), const([0, 1], np.float32))
row("OneHot", _best, const(5), const([0, 1], np.float32), axis=1)
row("OneHot", _best, const([6]), const([0, 1], np.float32))
row("GatherND", (5, 3), places([[1], [4]], 5))

# moving
row("Reshape", _best, const([4]))
row("Flatten", _best)
row("Transpose", _best)
row("Squeeze", places([[1], [3]], 5), const([1]))
row("Unsqueeze", _best, const([0]))
row("Expand", _best, const([3, 2, 2]))
row("Tile", _best, const([3, 1]))
row("Slice", _best, const([0]), const([1]), const([1]))
row("Split", _flat, const([1, 3]), results=2)
row("Gather", _best, const([1, 0]))
row("Gather", _best, data([1, 0, 1]), axis=1)
row("GatherElements", _best, data([[1], [0]]), axis=1)
row("Identity", _best)

row("Concat", _flat, places([3, 3, 4], 5), axis=0)

# casts, to types that hold them and one that does not
row("Cast", _flat, to=1)
row("Cast", _flat, to=9)

# comparing
rows("Equal Less LessOrEqual Greater GreaterOrEqual", _flat, places([4, 2, 1, 3], 5))
row("Equal", _flat, data([4, 2, 1, 3]))

# not reading
rows("Shape Size", _best, follows=True)

# computing with them
row("Add", _flat, data(1))
row("Concat", _flat, data([3, 4]), axis=0)
row("TopK", places([4.0, 1.0, 2.0, 0.0], 5, np.float32), const([2]), results=2, largest=0)
