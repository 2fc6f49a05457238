"""Samples of normalisations and softmax."""

from __future__ import annotations

import numpy as np

from rules.references import group_norm, skip_group_norm
from rules.registry import data, positive, row, rows

row("BatchNormalization", (2, 3, 5), (3,), (3,), (3,), positive(3))
row("BatchNormalization", (2, 3, 5), (3,), (3,), (3,), positive(3), opset=8)
row("BatchNormalization", (5, 3, 2), (3,), (3,), (3,), positive(3), results=3, training_mode=1)
row("InstanceNormalization", (2, 3, 5), (3,), (3,))
row("LRN", (2, 5, 3, 2), size=3, alpha=0.5)
row("MeanVarianceNormalization", (2, 3, 5, 4))
row("MeanVarianceNormalization", (2, 3, 5), axes=[1, 2])
for axis in (-1, 1, 0):
    row("LayerNormalization", (2, 3, 5), (2, 3, 5)[axis:], (2, 3, 5)[axis:], axis=axis, results=3)
row("LayerNormalization", (2, 3, 5), (5,))
row("LayerNormalization", (2, 3, 5), (5,), (1,), axis=-2)
row("RMSNormalization", (2, 3, 5), (5,))
row("RMSNormalization", (2, 3, 5), (3, 5), axis=-2)
row("SimplifiedLayerNormalization", (2, 3, 5), (5,), results=2, opset=17)
row("GroupNormalization", (2, 6, 5), (6,), (6,), num_groups=2)
row("GroupNormalization", (2, 6, 5), (2,), (2,), num_groups=2, opset=18)
row("com.microsoft.SkipLayerNormalization", (2, 3, 5), (2, 3, 5), (5,), (5,), (5,), results=4)
row("com.microsoft.SkipLayerNormalization", (2, 3, 5), (2, 3, 5), (5,))
row("com.microsoft.SkipLayerNormalization", (2, 3, 5), (3, 5), (5,))
row("com.microsoft.SkipSimplifiedLayerNormalization", (2, 3, 5), (2, 3, 5), (5,), (5,), results=4)
row("LpNormalization", (2, 3, 5), axis=1, p=2)
row("LpNormalization", (2, 3, 5), p=1)
rows("Softmax LogSoftmax Hardmax", (2, 3, 5))
rows("Softmax LogSoftmax Hardmax", (2, 3, 5), axis=1)
rows("Softmax LogSoftmax Hardmax", (2, 3, 5), opset=11)
row("Softmax", (2, 3, 5), opset=11, axis=-1)

_M = "com.microsoft."
rows(
    f"{_M}LayerNormalization", (2, 3, 5), (5,), (5,), reference=lambda x, s, b: (x - x.mean(-1, keepdims=True)) * s + b
)
rows(
    f"{_M}SimplifiedLayerNormalization",
    (2, 3, 5),
    (5,),
    reference=lambda x, s: x / np.sqrt((x**2).mean(-1, keepdims=True)) * s,
)
row(f"{_M}GroupNorm", (2, 3, 4, 6), (6,), (6,), groups=2, reference=group_norm)
row(f"{_M}GroupNorm", (2, 6, 3, 4), (6,), (6,), groups=2, channels_last=0, reference=group_norm)
for skip in ((2, 3, 4, 6), (2, 6)):
    row(f"{_M}SkipGroupNorm", (2, 3, 4, 6), (6,), (6,), skip, (6,), groups=2, results=2, reference=skip_group_norm)
_ids = data([[1, 5, 2], [0, 2, 3]], np.int32)
_tables = ((6, 5), (4, 5), (2, 5), (5,), (5,))
row(f"{_M}EmbedLayerNormalization", _ids, _ids % 2, *_tables, _ids % 2, results=3)
row(f"{_M}EmbedLayerNormalization", _ids, None, *_tables[:2], None, *_tables[3:], results=2)
row(f"{_M}GatedRMSNorm", (2, 3, 8), (4,), (2, 3, 8))
