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
    given = [call.axes(index) for index, operand in enumerate(call.operands) if operand is not None]
    rank = max(map(len, given))
    merged: list[Axis] = [ONE] * rank
    for axes in given:
        for position, axis in enumerate(axes, rank - len(axes)):
            known = merged[position]
            if known is not axis:
                merged[position] = axis if known is ONE and axis.size != 1 else call.broadcast(known, axis)
    return [tuple(merged)] * max(len(call.result_sizes), 1)


def first_only(call: Call) -> list[Axes | None]:
    """The first operand's axes are the result's; the others are scalars (pinned if they are not)."""
    for operand in call.operands[1:]:
        if operand is not None:
            call.pin(operand.axes or (), "an operand that should be a scalar")
    return [call.axes(0)] * max(len(call.result_sizes), 1)


def cast_like(call: Call) -> list[Axes | None]:
    """Of the second operand only the type is read."""
    call.related.add(1)
    return [call.axes(0)]


bind(
    "onnx.Abs onnx.Acos onnx.Acosh onnx.Asin onnx.Asinh onnx.Atan onnx.Atanh onnx.BitwiseNot onnx.Ceil onnx.Celu "
    "onnx.Cos onnx.Cosh onnx.Elu onnx.Erf onnx.Exp onnx.Floor onnx.Gelu onnx.HardSigmoid onnx.HardSwish onnx.IsInf "
    "onnx.IsNaN onnx.LeakyRelu onnx.Log onnx.Mish onnx.Neg onnx.Not onnx.Reciprocal onnx.Relu onnx.Round onnx.Selu "
    "onnx.Shrink onnx.Sigmoid onnx.Sign onnx.Sin onnx.Sinh onnx.Softplus onnx.Softsign onnx.Sqrt onnx.Swish onnx.Tan "
    "onnx.Tanh onnx.ThresholdedRelu com.microsoft.QuickGelu com.microsoft.Gelu",
    UNARY,
)
bind("onnx.Cast onnx.BitCast onnx.Bernoulli", UNARY)
bind("onnx.Affine onnx.ParametricSoftplus onnx.Scale onnx.ScaledTanh", UNARY)  # before opset 7; runtimes keep them
bind("onnx.Identity", UNARY)
bind("onnx.Clip onnx.Dropout", first_only)
bind("onnx.CastLike", cast_like, "input target_type")
bind("onnx.Add onnx.Sub onnx.Mul onnx.Div onnx.Pow onnx.Mod onnx.BitShift", pointwise, "")
bind("onnx.And onnx.Or onnx.Xor onnx.BitwiseAnd onnx.BitwiseOr onnx.BitwiseXor", pointwise)
bind("onnx.Equal onnx.Greater onnx.GreaterOrEqual onnx.Less onnx.LessOrEqual", pointwise)
bind("onnx.Where", pointwise, "condition X Y")
bind("onnx.Max onnx.Min onnx.Sum onnx.Mean", pointwise)
bind("onnx.PRelu", pointwise, "X slope")
bind("com.microsoft.BiasGelu com.microsoft.FastGelu", pointwise)
bind("onnx.SwiGLU", pointwise, "A B")


def gated(call: Call) -> list[Axes | None]:
    """A gate and a value apart, or one after the other in the last dimension."""
    return pointwise(call) if call.operand(1) is not None else Rule("*n (2 c) -> *n c")(call)


def complex_product(call: Call) -> list[Axes | None]:
    """Real and imaginary parts stand in the last dimension."""
    for index in (0, 1):
        call.pin(call.axes(index)[-1], "real and imaginary parts")
    return pointwise(call)


def biased_dropout(call: Call) -> list[Axes | None]:
    """Data, bias and residual meet; the ratio and the mode are scalars."""
    for operand in call.operands[3:]:
        if operand is not None:
            call.pin(operand.axes or (), "an operand that should be a scalar")
    inner = Call(call.space, call.node, call.op, call.operands[:3], call.attributes, call.result_sizes, call.opset)
    call.related.update(range(len(call.operands)))
    return pointwise(inner)


bind("com.microsoft.SwiGLU", gated, "gate up")
bind("com.microsoft.ScaledSiLU", first_only, "X")
bind("com.microsoft.ComplexMul com.microsoft.ComplexMulConj", complex_product, "A B")
bind("com.microsoft.BiasDropout", biased_dropout, "data bias residual ratio training_mode")
bind("com.microsoft.GatedAdd", Rule("*n c, *n c, *n 1, -? -> *n c"), "X Y gate gate_weight")
bind("com.microsoft.LinearAttentionGate", Rule("*n h, h, h, *n h? -> *n h, *n h"), "a dt_bias decay_scale b")
