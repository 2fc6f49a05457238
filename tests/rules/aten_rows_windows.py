"""Samples of pooling and resizing."""

from __future__ import annotations

from rules.aten_registry import positive, row, rows

rows("max_pool1d max_pool1d_with_indices avg_pool1d", (2, 3, 7), [3], [2], [1])
rows("max_pool2d max_pool2d_with_indices avg_pool2d", (2, 3, 6, 4), [2, 2])
rows("max_pool2d max_pool2d_with_indices avg_pool2d", (2, 3, 6, 4), [3, 3], [1, 1], [1, 1])
row("max_pool2d", (2, 3, 6, 4), [3, 1], [1], [1, 0])
row("max_pool2d", (3, 6, 4), [2, 2], [2, 2], [0, 0], [1, 1], True)
rows("max_pool3d max_pool3d_with_indices avg_pool3d", (2, 3, 6, 4, 2), [2, 2, 1])
rows("adaptive_avg_pool1d adaptive_max_pool1d", (2, 3, 7), [3])
rows("adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool2d", (2, 3, 6, 4), [1, 1])
rows("adaptive_avg_pool2d", (3, 6, 4), [3, 4])
rows("adaptive_avg_pool3d adaptive_max_pool3d _adaptive_avg_pool3d", (2, 3, 6, 4, 2), [2, 2, 1])
row("fractional_max_pool2d", (2, 3, 6, 6), [2, 2], [3, 3], positive(2, 3, 2))
row("fractional_max_pool3d", (2, 3, 6, 6, 6), [2, 2, 2], [3, 3, 3], positive(2, 3, 3))

rows("upsample_nearest1d _upsample_nearest_exact1d", (2, 3, 5), [10])
rows("upsample_nearest1d.vec _upsample_nearest_exact1d.vec", (2, 3, 5), None, [2.0])
rows("upsample_nearest2d _upsample_nearest_exact2d", (2, 3, 5, 4), [10, 4])
rows("upsample_nearest2d.vec _upsample_nearest_exact2d.vec", (2, 3, 5, 4), None, [2.0, 2.0])
rows("upsample_nearest2d.vec", (2, 3, 5, 4), [10, 8], None)
rows("upsample_nearest3d _upsample_nearest_exact3d", (2, 3, 2, 3, 2), [4, 6, 4])
rows("upsample_nearest3d.vec _upsample_nearest_exact3d.vec", (2, 3, 2, 3, 2), None, [2.0, 2.0, 2.0])
row("upsample_linear1d", (2, 3, 5), [10], False)
row("upsample_linear1d.vec", (2, 3, 5), None, True, [2.0])
_planes = "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
rows(_planes, (2, 3, 5, 4), [10, 8], False)
rows(" ".join(f"{name}.vec" for name in _planes.split()), (2, 3, 5, 4), None, False, [2.0, 2.0])
row("_upsample_lanczos2d_aa", (2, 3, 5, 4), [10, 8], False)
row("_upsample_lanczos2d_aa.vec", (2, 3, 5, 4), None, False, [2.0, 2.0])
row("upsample_trilinear3d", (2, 3, 2, 3, 2), [4, 6, 4], False)
row("upsample_trilinear3d.vec", (2, 3, 2, 3, 2), None, True, [2.0, 2.0, 2.0])
