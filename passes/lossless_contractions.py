"""Operators that multiply an activation by a weight and sum: what they read, what they make, where a constant can go.

``y[.., row] = bias[row] + sum over columns c and taps of weight[row, c] * x[.., c]``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprune.rules.call import Call

__all__ = ["Contraction", "contraction"]


@dataclass(frozen=True, slots=True)
class Contraction:
    """Where the parts of a contraction are.

    ``x`` is the activation and its summed dimension. Operand ``weight`` holds what that dimension's positions are
    multiplied by along ``columns``; ``rows`` is the dimension that becomes ``result`` of the output. With ``groups``,
    position ``g * columns + c`` of ``x`` meets column ``c`` of the rows of group ``g``; ``wide`` says that columns
    stand for all groups instead. ``bias`` is the operand that is added, whether present or not, or None where the
    operator has none. ``alpha`` scales the product, ``beta`` the bias. ``uniform``: equal numbers at all places of
    ``x`` give equal numbers at all places of ``y`` (no padding). ``plain``: nothing else happens to ``y``.
    """

    x: tuple[int, int]
    weight: int
    rows: int
    columns: int
    result: int | None
    groups: int = 1
    wide: bool = False
    bias: int | None = None
    addable: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    uniform: bool = True
    plain: bool = True


def contraction(call: Call) -> Contraction | None:
    """The contraction that a call is, None for any other operator."""
    build = _BUILDERS.get(call.op)
    if build is None or any(call.operand(index) is None for index in (0, 1)):
        return None
    return build(call)


def _rank(call: Call, index: int) -> int:
    operand = call.operand(index)
    return -1 if operand is None or operand.axes is None else len(operand.axes)


def _conv(call: Call) -> Contraction:
    fused = call.op != "onnx.Conv"
    padded = any(call.attribute("pads", ())) or call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return Contraction(
        x=(0, 1), weight=1, rows=0, columns=1, result=1, groups=int(call.attribute("group", 1)), bias=2,
        uniform=not padded, plain=not fused,
    )  # fmt: skip


def _conv_transpose(call: Call) -> Contraction:
    groups = int(call.attribute("group", 1))
    return Contraction(
        x=(0, 1), weight=1, rows=1, columns=0, result=1 if groups == 1 else None, wide=True, bias=2, uniform=False
    )


def _gemm(call: Call) -> Contraction:
    by_row = bool(call.attribute("transB", 0))
    return Contraction(
        x=(0, 0 if call.attribute("transA", 0) else 1), weight=1, rows=0 if by_row else 1, columns=1 if by_row else 0,
        result=1, bias=2, alpha=float(call.attribute("alpha", 1.0)), beta=float(call.attribute("beta", 1.0)),
        plain=call.op == "onnx.Gemm",
    )  # fmt: skip


def _matmul(call: Call) -> Contraction | None:
    a, b = _rank(call, 0), _rank(call, 1)
    second = call.operand(1)
    if b == 2 and a >= 2 and second is not None:
        return Contraction(x=(0, a - 1), weight=1, rows=1, columns=0, result=a - 1, addable=True)
    return None


def _fused_matmul(call: Call) -> Contraction | None:
    a, b = _rank(call, 0), _rank(call, 1)
    if any(call.attribute(name, 0) for name in ("transA", "transBatchA", "transBatchB")) or a < 2 or b != 2:
        return None
    by_row = bool(call.attribute("transB", 0))
    alpha = float(call.attribute("alpha", 1.0))
    return Contraction(
        x=(0, a - 1), weight=1, rows=0 if by_row else 1, columns=1 if by_row else 0, result=a - 1, alpha=alpha
    )


def _recurrent(call: Call) -> Contraction:
    return Contraction(x=(0, 2), weight=1, rows=1, columns=2, result=None, plain=False)


_BUILDERS: dict[str, Callable[[Call], Contraction | None]] = {
    "onnx.Conv": _conv,
    "com.microsoft.FusedConv": _conv,
    "onnx.ConvTranspose": _conv_transpose,
    "onnx.Gemm": _gemm,
    "com.microsoft.FusedGemm": _gemm,
    "onnx.MatMul": _matmul,
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.TransposeMatMul": _fused_matmul,
    "onnx.LSTM": _recurrent,
    "onnx.GRU": _recurrent,
    "onnx.RNN": _recurrent,
}
