"""Operators that sum over an axis: convolutions and matrix products.

``y[n, g, o, t] = sum_{i, k} x[n, g, i, t*stride + k] * w[g, o, i, k] + b[g, o]``; removing input position ``i`` is
the same as feeding zero there, and removing output position ``o`` removes a row of ``w`` and an entry of ``b``.
"""

from __future__ import annotations

from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind
from graphprune.rules.windows import sliding

_GROUPED = {"g": "group"}
_CONV_MACS = ("n g i o *k *t",)

CONVOLUTION = Rule(
    sliding("n (g i) *s, (g o) i *k, (g o)? -> n (g o) *t"), sizes=_GROUPED, sites={"group": "g"}, macs=_CONV_MACS
)
FUSED_CONVOLUTION = Rule(
    sliding("n (g i) *s, (g o) i *k, (g o)?, n (g o) *t!? -> n (g o) *t"),
    sizes=_GROUPED,
    sites={"group": "g"},
    macs=_CONV_MACS,
)
TRANSPOSED_CONVOLUTION = Rule(
    "n (g i) *s, (g i) o *k, (g o)? -> n (g o) *t", sizes=_GROUPED, sites={"group": "g"}, macs=("n g i o *k *s",)
)

bind("onnx.Conv", CONVOLUTION, "X W B")
bind("com.microsoft.FusedConv", FUSED_CONVOLUTION, "X W B Z")
bind("onnx.ConvTranspose", TRANSPOSED_CONVOLUTION, "X W B")
bind(
    "com.microsoft.ConvTransposeWithDynamicPads",
    Rule("n (g i) *s, (g i) o *k, -?, (g o)? -> n (g o) *t", sizes=_GROUPED, sites={"group": "g"}),
    "X W Pads B",
)
bind(
    "com.microsoft.NhwcConv com.microsoft.NhwcFusedConv",
    Rule(
        "n *s (g i), (g o) *k i, (g o)?, n *t! (g o)? -> n *t (g o)",
        sizes=_GROUPED,
        sites={"group": "g"},
        macs=_CONV_MACS,
    ),
    "X W B",
)


def _gemm(call: Call) -> str:
    a = "k m" if call.attribute("transA", 0) else "m k"
    b = "n k" if call.attribute("transB", 0) else "k n"
    bias = call.operand(2)
    rank = 0 if bias is None or bias.axes is None else len(bias.axes)
    return f"{a}, {b}, {('', 'n~', 'm~ n~')[min(rank, 2)]}? -> m n"


bind("onnx.Gemm com.microsoft.FusedGemm", Rule(_gemm, macs=("m k n",)), "A B C")


def matmul_text(a: int, b: int, trans_a: bool = False, trans_b: bool = False) -> str:
    """The equation of ``numpy.matmul`` for operands of rank ``a`` and ``b``, optionally transposed in the last two."""
    left = "k" if a == 1 else "*b k m" if trans_a else "*b m k"
    right = "k" if b == 1 else "*b n k" if trans_b else "*b k n"
    result = " ".join(name for name, there in (("*b", max(a, b) > 2), ("m", a > 1), ("n", b > 1)) if there)
    return f"{left}, {right} -> {result}"


def matmul_of_ranks(call: Call) -> str:
    return matmul_text(len(call.axes(0)), len(call.axes(1)))


def _fused_matmul(call: Call) -> str:
    trans_a, trans_b = bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0))
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        left = _batched("m k", trans_a, bool(call.attribute("transBatchA", 0)))
        right = _batched("k n", trans_b, bool(call.attribute("transBatchB", 0)))
        return f"{left}, {right} -> *b m n"
    return matmul_text(len(call.axes(0)), len(call.axes(1)), trans_a, trans_b)


def _batched(names: str, swapped: bool, outer: bool) -> str:
    """A matrix operand; ``outer`` puts its first dimension in front of the batch dimensions."""
    first, second = reversed(names.split()) if swapped else names.split()
    return f"{first} *b {second}" if outer else f"*b {first} {second}"


MATMUL = Rule(matmul_of_ranks, macs=("*b m k n",))
bind("onnx.MatMul com.microsoft.MatMulInteger16", MATMUL, "A B")
bind(
    "com.microsoft.FusedMatMul com.microsoft.TransposeMatMul com.microsoft.FusedMatMulActivation",
    Rule(_fused_matmul, macs=("*b m k n",)),
    "A B",
)


def _einsum(call: Call) -> str:
    """``Einsum`` gets its rule from its equation; an ellipsis is a broadcast run."""
    equation: str = call.attribute("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = sorted(set(left) - set(",."))
        right = ("..." if "..." in left else "") + "".join(c for c in letters if left.count(c) == 1)
    terms = [term.replace("...", "@") for term in [*left.split(","), right]]
    spelled = [" ".join("*ellipsis" if c == "@" else c for c in term) for term in terms]
    return ", ".join(spelled[:-1]) + " -> " + spelled[-1]


class Einsum:
    """Einsum costs the product of all its letters, so its rule is made for each call."""

    def __call__(self, call: Call) -> list[Axes | None]:
        text = _einsum(call)
        names = dict.fromkeys(text.replace(",", " ").replace("->", " ").split())
        operands, _, result = text.partition(" -> ")
        alone = {
            name: (number,)
            for number, operand in enumerate(operands.split(", "))
            for name in operand.split()
            if name not in result.split() and text.split().count(name) + text.split().count(f"{name},") == 1
        }
        return Rule(text, macs=(" ".join(names),), summed=alone)(call)


EINSUM = Einsum()
bind("com.microsoft.GemmFastGelu", Rule("*m k, k n, n? -> *m n", macs=("*m k n",)), "X W bias")
bind("com.microsoft.CDist", Rule("m k, n k -> m n", macs=("m k n",), summed={"k": (0, 1)}), "A B")
bind("onnx.Einsum", EINSUM, "Inputs")
