"""Samples of operands that hold positions along an axis of 5, or say how often each of them was chosen."""

from __future__ import annotations

import torch

from rules.aten_registry import counts, data, ends, of, places, row, rows
from rules.transformers_operators import grouped_mm

_best = places([[1, 3], [0, 4]], 5)
_flat = places([4, 1, 1, 0], 5)

# addressing
rows("index _unsafe_index", (5, 3), [_best])
row("index", (2, 5, 3), [None, places([1, 3, 3], 5)])
row("index", (2, 5, 3, 7), [None, _best, data([0, 2])])
row("index", (6, 3), [_best])
rows("index_put _unsafe_index_put", (2, 5, 3), [None, places([1, 3], 5)], (2, 2, 3), True)
row("index_put", of("int64", 5), [data([1, 0, 3, 2])], _flat)
row("index_select", (2, 5), 1, places([1, 3, 0], 5))
row("gather", (2, 5), 1, _best)
row("take_along_dim", (2, 5), _best, 1)
row("scatter", (2, 5), 1, _best, (2, 2))
row("scatter", (2, 5), 1, _best, 0.5)
row("scatter", of("int64", 2, 5), 1, data([[1, 3], [0, 4]]), _best)
row("scatter_add", (2, 5), 1, _best, (2, 2))
row("scatter_reduce", (2, 5), 1, _best, (2, 2), "amax")
row("index_add", (5, 3), 0, places([1, 3], 5), (2, 3))
row("index_fill", (5, 3), 0, places([1, 2], 5), 0.5)
row("embedding", (5, 3), _best)
row("embedding", (5, 3), _best, 2)
row("one_hot", _best, 5)
row("one_hot", _best, 6)
row("take", (5, 3), _best)

# moving
rows("view reshape _unsafe_view view_copy _reshape_copy", _best, [4])
rows("flatten ravel t t_copy numpy_T mT clone contiguous detach detach_copy alias alias_copy", _best)
rows("lift_fresh lift_fresh_copy", _best)
row("unflatten", _flat, 0, [2, 2])
rows("permute permute_copy", _best, [1, 0])
rows("transpose transpose_copy swapdims swapaxes movedim moveaxis", _best, 0, 1)
rows("squeeze squeeze_copy", places([[1], [3]], 5), 1)
rows("unsqueeze unsqueeze_copy", _best, 0)
rows("expand expand_copy broadcast_to", _best, [3, 2, 2])
row("expand_as", _best, (3, 2, 2))
rows("repeat tile", _best, [3, 1])
row("repeat_interleave", _flat, 2)
rows("select select_copy", _best, 1, 0)
rows("slice slice_copy", _best, 1, 0, 1)
row("narrow", _best, 1, 0, 1)
rows("split chunk", _flat, 2)
row("split_with_sizes", _flat, [1, 3])
row("unbind", _best, 1)
rows("index _unsafe_index", _best, [data([1, 0, 1])])
row("index_select", _best, 0, data([1, 0, 1]))
row("gather", _best, 1, data([[1], [0]]))
row("take_along_dim", _best, data([[1], [0]]), 1)
row("sort", _flat)
row("argsort", _flat)
row("msort", _flat)
row("topk", _flat, 2, -1, False)

rows("cat concat concatenate", [_flat, places([3, 3, 4], 5)])
row("stack", [_flat, places([3, 0, 3, 4], 5)], 1)

# casts, to types that hold them and one that does not
rows("to _to_copy", _flat, dtype=torch.int32)
row("to", _flat, torch.float16)
row("to", _flat, torch.bool)
row("view", _flat, torch.float64)

# comparing
rows("eq ne lt le gt ge not_equal less less_equal greater greater_equal", _flat, places([4, 2, 1, 3], 5))
row("eq", _flat, places([4, 2, 1, 3], 6))
row("eq", _flat, data([4, 2, 1, 3]))
row("lt", _flat, 2)

# not reading
rows("zeros_like ones_like empty_like rand_like randn_like", places([4.0, 1.0], 5), follows=True)
row("sym_size", _best, 1, follows=True)
row("sym_numel", _best, follows=True)
row("full_like", _best, 2, follows=True)
rows("new_zeros new_ones new_empty", _best, [7], follows=True)
row("new_full", _best, [7], 2, follows=True)

# computing with them
row("add", _flat, 1)
row("mul", _flat, _flat)
row("where", data([True, False, True, True]), _flat, data(0))
row("cat", [_flat, data([3, 4])])
row("cat", [_flat, places([5, 1], 6)])
row("sum", _flat)

# how often each was chosen
row("histc", of("float32", 9), 5, -1, 1)
row("histc", places([[4.0, 1.0], [1.0, 0.0]], 5), 5, 0, 4)
row("histc", places([4.0, 1.0, 1.0, 0.0], 5), 6, 0, 5)
row("cumsum", counts(2, 0, 3, 1), 0)
row("_grouped_mm", (6, 16), (4, 16, 24), ends(1, 2, 4, 6, dtype=torch.int32), reference=grouped_mm)
row("transformers.grouped_mm_fallback", (6, 5), (4, 5, 7), ends(1, 2, 4, 6), reference=grouped_mm)
