"""Samples of operators that treat every position by itself."""

from __future__ import annotations

import numpy as np

from rules.references import swiglu
from rules.registry import const, data, of, positive, row, rows

rows(
    "Abs Asin Asinh Atan Atanh Acos Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf IsNaN "
    "LeakyRelu Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh "
    "ThresholdedRelu Identity com.microsoft.QuickGelu com.microsoft.Gelu",
    (2, 5, 3),
)
rows("Affine ParametricSoftplus ScaledTanh", (2, 5, 3), opset=7, alpha=0.5, beta=0.25)
row("Scale", (2, 5, 3), reference=lambda x, scale: x * scale, scale=2.0)
rows("Log Sqrt", positive(2, 5, 3))
row("Acosh", positive(2, 5, 3) + 1)
row("Swish", (2, 5, 3), opset=24)
rows("BitwiseNot", of(np.int32, 2, 5, 3))
row("Not", of(bool, 2, 5))
row("Cast", (2, 5), to=7)
row("BitCast", (2, 5), to=6, opset=26)
row("CastLike", (2, 5), of(np.int64, 3))
row("Dropout", (2, 5), results=2)
row("Dropout", (2, 5), opset=10)
row("Clip", (2, 5), const(-0.5, np.float32), const(0.5, np.float32))
row("Clip", (2, 5), min=-0.5, max=0.5, opset=10)

for left, right in [((3, 5), (3, 5)), ((2, 3, 5), (5,)), ((2, 3, 5), (3, 1)), ((1, 5), (3, 1)), ((3, 5), ())]:
    row("Add", left, right)
rows("Sub Mul Div", (2, 3, 5), (3, 1))
row("Add", (3, 5), (3, 5), opset=7)
row("Pow", positive(3, 5), positive(5))
row("Mod", of(np.int64, 3, 5), of(np.int64, 5) * 2 + 1)
row("BitShift", of(np.uint8, 3, 5), of(np.uint8, 5) % 3, direction="LEFT")
rows("And Or Xor", of(bool, 3, 5), of(bool, 5, seed=1))
rows("BitwiseAnd BitwiseOr BitwiseXor", of(np.int32, 3, 5), of(np.int32, 5))
rows("Equal Greater GreaterOrEqual Less LessOrEqual", of(np.int32, 3, 5), of(np.int32, 5))
row("Where", of(bool, 3, 1), (2, 3, 5), (5,))
rows("Max Min Sum Mean", (3, 5), (5,), (3, 1))
row("PRelu", (2, 3, 5), (3, 1))
rows("com.microsoft.BiasGelu com.microsoft.FastGelu", (2, 3, 5), (5,))
row("com.microsoft.FastGelu", (2, 3, 5))
row("SwiGLU", (2, 3, 5), (2, 3, 5), opset=28)
row("com.microsoft.SwiGLU", (2, 3, 5), (2, 3, 5), reference=swiglu)
row("com.microsoft.SwiGLU", (2, 3, 10), reference=swiglu)
row("com.microsoft.ScaledSiLU", (2, 3, 5), reference=lambda x: x / (1 + np.exp(-x)))
rows("com.microsoft.ComplexMul com.microsoft.ComplexMulConj", (3, 5, 2), (3, 1, 2), reference=lambda a, b: a * b)
row(
    "com.microsoft.BiasDropout",
    (2, 3, 5),
    (5,),
    (2, 3, 5),
    const(0.5, np.float32),
    reference=lambda a, b, c, _: a + b + c,
)
row("com.microsoft.GatedAdd", (2, 3, 5), (2, 3, 5), (2, 3, 1))
row("com.microsoft.LinearAttentionGate", (2, 3, 5), (5,), (5,), (2, 3, 5), results=2)
row("Bernoulli", data([[0, 1, 0], [1, 1, 0]], np.float32))
