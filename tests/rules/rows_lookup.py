"""Samples of operators that find their positions at run time."""

from __future__ import annotations

import numpy as np

from rules.registry import data, row

row("GatherElements", (3, 5), data([[0, 2, 1, 1, 0], [2, 2, 0, 1, 0]]))
row("GatherElements", (3, 5), data([[0, 2], [4, 2], [1, 1]]), axis=1)
row("GatherND", (3, 4, 5), data([[0, 1], [2, 3]]))
row("GatherND", (2, 4, 5), data([[1], [2]]), batch_dims=1)
row("ScatterElements", (3, 5), data([[0, 2, 1, 1, 0], [2, 0, 0, 0, 1]]), (2, 5))
row("Scatter", (3, 5), data([[0, 2, 1, 1, 0]]), (1, 5), opset=9)
row("ScatterND", (4, 5, 3), data([[0], [2]]), (2, 5, 3))
row("ScatterND", (4, 5, 3), data([[0, 1], [2, 4]]), (2, 3), reduction="add")
row("Trilu", (2, 4, 5))
row("RandomNormalLike", (4, 5), reference=lambda x, **_: np.zeros(x.shape))
row("RandomUniformLike", (4, 5), reference=lambda x, **_: np.zeros(x.shape))
