"""Samples of reductions, pooling and resizing."""

from __future__ import annotations

import numpy as np

from rules.registry import const, of, positive, row, rows

_SUMS = "ReduceSum ReduceL1 ReduceL2 ReduceSumSquare"
_OTHERS = "ReduceMean ReduceMax ReduceMin ReduceProd ReduceLogSumExp"
rows(_SUMS + " " + _OTHERS, (2, 3, 5), const([1]))
rows(_SUMS + " " + _OTHERS, (2, 3, 5), axes=[-1, 0], keepdims=0, opset=11)
rows(_SUMS + " " + _OTHERS, (2, 3, 5))
row("ReduceLogSum", positive(2, 3, 5), const([1]))
row("ReduceSum", (2, 3), noop_with_empty_axes=1)
rows("ArgMax ArgMin", (2, 5, 3), axis=1)
rows("ArgMax ArgMin", (2, 5, 3), axis=-1, keepdims=0)
row("CumSum", (2, 5, 3), const(1))
row("CumSum", (2, 5, 3), const(1), exclusive=1, reverse=1)
row("TopK", (2, 5), const([2]), results=2)
row("TopK", (2, 5), const([2]), axis=0, results=2)
row("TopK", (2, 5), k=2, results=2, opset=9)
rows("GlobalAveragePool GlobalMaxPool", (2, 3, 5, 4))
row("GlobalLpPool", (2, 3, 5, 4), reference=lambda x: np.sqrt((x**2).sum((2, 3), keepdims=True)))
rows("AveragePool MaxPool LpPool", (2, 3, 5, 4), kernel_shape=[2, 2])
row("MaxPool", (2, 3, 5, 4), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, results=2)
row("com.microsoft.NhwcMaxPool", of(np.uint8, 2, 5, 4, 3), kernel_shape=[2, 2])
row("Resize", (2, 3, 4, 5), None, const([1, 1, 2, 2], np.float32))
row("Resize", (2, 3, 4, 5), None, None, const([2, 3, 8, 10]))
row("Resize", (2, 3, 4, 5), None, None, const([8, 10]), axes=[2, 3], mode="linear")
row("Resize", (2, 3, 4, 5), const([1, 1, 2, 2], np.float32), opset=10)
row("Upsample", (2, 3, 4, 5), const([1, 1, 2, 2], np.float32), opset=9)
row("Upsample", (2, 3, 4, 5), scales=[1.0, 1.0, 2.0, 2.0], opset=7)
