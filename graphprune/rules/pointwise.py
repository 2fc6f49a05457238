"""Operators that treat every position by itself: ``y[p] = f(x[p], z[p], ...)``, with numpy broadcasting.

Dimensions are aligned at the last one; where an operand has size 1 it is repeated. Cutting a position removes just that
position's result, whatever ``f`` is.
"""

from __future__ import annotations

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind

UNARY = Rule("*n -> *n")


def pointwise(call: Call) -> list[Axes | None]:
    """All operands and all results share their axes, by broadcasting."""
    rank = max(len(call.axes(index)) for index, operand in enumerate(call.operands) if operand is not None)
    merged: list[Axis] = [ONE] * rank
    for index, operand in enumerate(call.operands):
        if operand is None:
            continue
        axes = call.axes(index)
        for position, axis in enumerate(axes, rank - len(axes)):
            merged[position] = call.broadcast(merged[position], axis)
    return [tuple(merged)] * max(len(call.result_sizes), 1)


def first_only(call: Call) -> list[Axes | None]:
    """The first operand's axes are the result's; the others are scalars (pinned if they are not)."""
    for operand in call.operands[1:]:
        if operand is not None:
            call.pin(operand.axes or (), "an operand that should be a scalar")
    return [call.axes(0)] * max(len(call.result_sizes), 1)


bind(
    "onnx.Abs onnx.Acos onnx.Acosh onnx.Asin onnx.Asinh onnx.Atan onnx.Atanh onnx.BitwiseNot onnx.Ceil onnx.Celu "
    "onnx.Cos onnx.Cosh onnx.Elu onnx.Erf onnx.Exp onnx.Floor onnx.Gelu onnx.HardSigmoid onnx.HardSwish onnx.IsInf "
    "onnx.IsNaN onnx.LeakyRelu onnx.Log onnx.Mish onnx.Neg onnx.Not onnx.Reciprocal onnx.Relu onnx.Round onnx.Selu "
    "onnx.Shrink onnx.Sigmoid onnx.Sign onnx.Sin onnx.Sinh onnx.Softplus onnx.Softsign onnx.Sqrt onnx.Swish onnx.Tan "
    "onnx.Tanh onnx.ThresholdedRelu com.microsoft.QuickGelu com.microsoft.Gelu",
    UNARY,
)
bind("onnx.Cast onnx.BitCast onnx.Bernoulli", UNARY)
bind("onnx.Identity", UNARY)
bind("onnx.Clip onnx.Dropout", first_only)
bind("onnx.CastLike", first_only)
bind("onnx.Add onnx.Sub onnx.Mul onnx.Div onnx.Pow onnx.Mod onnx.BitShift", pointwise, "")
bind("onnx.And onnx.Or onnx.Xor onnx.BitwiseAnd onnx.BitwiseOr onnx.BitwiseXor", pointwise)
bind("onnx.Equal onnx.Greater onnx.GreaterOrEqual onnx.Less onnx.LessOrEqual", pointwise)
bind("onnx.Where", pointwise, "condition X Y")
bind("onnx.Max onnx.Min onnx.Sum onnx.Mean", pointwise)
bind("onnx.PRelu", pointwise, "X slope")
bind("com.microsoft.BiasGelu com.microsoft.FastGelu", pointwise)
