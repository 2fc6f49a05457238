"""Samples of convolutions and matrix products."""

from __future__ import annotations

from rules.aten_registry import row

row("conv2d", (2, 3, 5, 7), (4, 3, 3, 3), (4,), stride=[2, 2])
row("conv2d", (2, 6, 5, 7), (8, 3, 3, 3), (8,), groups=2, padding=[1, 1])
row("linear", (2, 4, 3), (5, 3), (5,))
