"""Samples of convolutions and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from rules.registry import const, row, rows

row("Conv", (2, 3, 5, 7), (4, 3, 3, 3), (4,))
row("Conv", (2, 6, 5, 7), (8, 3, 3, 3), (8,), group=2)
row("Conv", (2, 6, 7), (12, 1, 3), group=6, auto_pad="SAME_UPPER")
row("Conv", (2, 6, 7), (6, 1, 3), (6,), group=6, strides=[2], pads=[1, 1])
row("com.microsoft.FusedConv", (2, 3, 5, 7), (4, 3, 1, 1), (4,), (2, 4, 5, 7), activation="Relu")
row("com.microsoft.FusedConv", (2, 3, 5, 7), (4, 3, 1, 1), activation="Relu")
row("ConvTranspose", (2, 6, 5, 7), (6, 4, 3, 3), (8,), group=2, strides=[2, 2], output_padding=[1, 1])
row("ConvTranspose", (2, 3, 5), (3, 4, 3), output_shape=[7])

row("Gemm", (2, 3), (3, 5))
row("Gemm", (2, 3), (3, 5), (5,), alpha=0.5, beta=2.0)
row("Gemm", (3, 2), (5, 3), (2, 1), transA=1, transB=1)
row("Gemm", (2, 3), (3, 5), (1, 5))
row("Gemm", (2, 3), (3, 5), (2, 5))
row("Gemm", (2, 3), (3, 5), ())
row("Gemm", (2, 3), (3, 5), (1,), opset=7)
row("com.microsoft.FusedGemm", (2, 3), (5, 3), (5,), transB=1, activation="Relu")

row("MatMul", (2, 3), (3, 5))
row("MatMul", (3,), (3, 5))
row("MatMul", (2, 3), (3,))
row("MatMul", (3,), (3,))
row("MatMul", (2, 4, 2, 3), (4, 3, 5))
row("MatMul", (2, 1, 2, 3), (4, 3, 5))
row("MatMul", (2, 4, 2, 3), (3,))
row("com.microsoft.FusedMatMul", (2, 3, 2), (2, 5, 3), transA=1, transB=1, alpha=0.5)
row("com.microsoft.FusedMatMul", (4, 2, 3), (2, 3, 5), transBatchA=1)
row("com.microsoft.FusedMatMul", (3, 2, 4), (5, 2, 3), transA=1, transB=1, transBatchA=1, transBatchB=1)
row("com.microsoft.TransposeMatMul", (3, 2), (5, 3), transA=1, transB=1)

row("Einsum", (2, 3, 4), (4, 5), equation="bij,jk->bik")
row("Einsum", (2, 3, 4), (2, 5, 4), equation="bij, bkj")
row("Einsum", (2, 2, 3, 4), (4, 5), equation="...ij,jk->...ik")
row("Einsum", (3, 3), equation="ii->i")
row("Einsum", (2, 3), (3, 4), (4, 5), equation="ij,jk,kl->il")
row("Einsum", (2, 3), equation="ij->j")

_M = "com.microsoft."
_x, _w = (2, 5, 7, 6), (8, 3, 3, 3)


def _last(x: np.ndarray, w: np.ndarray, b: np.ndarray, z: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """A convolution without padding, channels last."""
    group = options["group"]
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], (1, 2))
    windows = windows.reshape(*windows.shape[:3], group, -1, *w.shape[1:3])
    y = np.einsum("nhwgixy,goxyi->nhwgo", windows, w.reshape(group, -1, *w.shape[1:]))
    return y.reshape(*y.shape[:3], -1) + b + (0 if z is None else z)


row(f"{_M}NhwcConv", _x, _w, (8,), group=2, reference=_last)
row(f"{_M}NhwcFusedConv", _x, _w, (8,), (2, 3, 5, 8), group=2, reference=_last)
row(f"{_M}ConvTransposeWithDynamicPads", (2, 6, 5, 7), (6, 4, 3, 3), const([1, 1, 1, 1]), (8,), group=2)
row(f"{_M}GemmFastGelu", (2, 3, 4), (4, 5), (5,), reference=lambda x, w, b: np.tanh(x @ w + b))
rows(f"{_M}CDist", (3, 4), (5, 4), metric="sqeuclidean")
row(f"{_M}FusedMatMulActivation", (2, 3), (5, 3), transB=1, activation="Relu", reference=lambda a, b, **_: a @ b.T)
