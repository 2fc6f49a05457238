"""Samples of convolutions and matrix products."""

from __future__ import annotations

from rules.registry import row

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
