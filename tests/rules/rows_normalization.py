"""Samples of normalisations and softmax."""

from __future__ import annotations

from rules.registry import positive, row, rows

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
