"""ATen's convolutions and products of vectors and matrices (algebra: :mod:`graphprune.rules.contraction`).

Unlike ONNX's, a convolution may lack the batch dimension, and an addend comes first: ``addmm(c, a, b) = c + a @ b``.
"""

from __future__ import annotations

from string import ascii_letters

from graphprune.rules.call import Axes, Call, Declined, Mix
from graphprune.rules.contraction import CONVOLUTION, EINSUM, MATMUL, TRANSPOSED_CONVOLUTION
from graphprune.rules.pointwise import pointwise
from graphprune.rules.positions import ENDS
from graphprune.rules.table import Rule, bind

_SPATIAL = {"strides": "stride", "pads": "padding", "auto_pad": "padding", "dilations": "dilation"}


def convolution(call: Call) -> list[Axes | None]:
    """A convolution or a transposed one, with a batch dimension or without."""
    rule = TRANSPOSED_CONVOLUTION if call.attribute("transposed", False) else CONVOLUTION
    if len(call.axes(0)) == len(call.axes(1)):
        return rule(call)
    text = rule.text if isinstance(rule.text, str) else rule.text(call)
    macs = tuple(term.removeprefix("n ") for term in rule.macs)
    return Rule(text.replace("n (g", "(g"), sizes=rule.sizes, sites=rule.sites, macs=macs)(call)


bind("aten.conv1d aten.conv2d aten.conv3d", convolution, "input weight bias", group="groups", **_SPATIAL)
bind("aten.convolution aten._convolution", convolution, "input weight bias", group="groups", **_SPATIAL)
bind("aten.mkldnn_convolution", convolution, "self weight bias", group="groups", **_SPATIAL)
bind(
    "aten.conv_transpose1d aten.conv_transpose2d aten.conv_transpose3d",
    convolution,
    "input weight bias",
    transposed=True,
    group="groups",
    **_SPATIAL,
)
bind("aten.conv_tbc", Rule("t! b i, k i o, o -> u b o", macs=("u b k i o",)), "self weight bias")


def _linear(call: Call) -> str:
    return "*n i, o i, o? -> *n o" if len(call.axes(1)) == 2 else "*n i, i -> *n"


LINEAR = Rule(_linear, macs=("*n i o",))
bind("aten.linear", LINEAR, "input weight bias")
bind("aten.matmul aten.linalg_matmul", MATMUL, "self other")
bind("aten.mm aten.bmm aten._int_mm", MATMUL, "self mat2")
bind("aten.mv", MATMUL, "self vec")
DOT = Rule("k, k -> ")
bind("aten.dot", DOT, "self tensor")
bind("aten.vdot", DOT, "self other")
bind("aten.inner", Rule("*a k, *b k -> *a *b", macs=("*a *b k",)), "self other")
bind("aten.outer aten.ger", Rule("m, n -> m n"), "self vec2")


def _added(call: Call) -> str:
    """The addend of a product, aligned at the last dimension, and the product."""
    name = call.op.split(".")[1]
    product, result = _PRODUCTS[name]
    dims = [f"{letter}~" for letter in result.split()]
    rank = len(call.axes(0))
    return f"{' '.join(dims[len(dims) - rank :])}, {product} -> {result}"


_PRODUCTS = {
    "addmm": ("m k, k n", "m n"),
    "addmv": ("m k, k", "m"),
    "addr": ("m, n", "m n"),
    "baddbmm": ("b m k, b k n", "b m n"),
    "addbmm": ("b m k, b k n", "m n"),
}
bind("aten.addmm", Rule(_added, macs=("m k n",)), "self mat1 mat2")
bind("aten.addmv", Rule(_added, macs=("m k",)), "self mat vec")
bind("aten.addr", Rule(_added), "self vec1 vec2")
bind("aten.baddbmm aten.addbmm", Rule(_added, macs=("b m k n",)), "self batch1 batch2")
bind("aten.einsum", EINSUM, "tensors")
bind("aten.bilinear", Rule("*n i, *n j, o i j, o? -> *n o", macs=("*n o i j",)), "input1 input2 weight bias")


def tensordot(call: Call) -> list[Axes | None]:
    """Listed dimensions are summed in pairs; the others follow one another."""
    left, right = (len(call.axes(number)) for number in (0, 1))
    names = iter(ascii_letters)
    a = [next(names) for _ in range(left)]
    b = [next(names) for _ in range(right)]
    for one, other in zip(call.attribute("dims_self"), call.attribute("dims_other"), strict=True):
        b[other] = a[one]
    result = [name for name in a if name not in b] + [name for name in b if name not in a]
    text = f"{' '.join(a)}, {' '.join(b)} -> {' '.join(result)}"
    return Rule(text, macs=(" ".join(dict.fromkeys(a + b)),))(call)


def chain(call: Call) -> list[Axes | None]:
    """The product of many matrices, of which the first and the last may be vectors."""
    count = len(call.operands)
    ranks = [len(call.axes(number)) for number in range(count)]
    texts = [f"x{number} x{number + 1}" for number in range(count)]
    if ranks[0] == 1:
        texts[0] = "x1"
    if ranks[-1] == 1:
        texts[-1] = f"x{count - 1}"
    result = [f"x{end}" for end, rank in ((0, ranks[0]), (count, ranks[-1])) if rank == 2]
    return Rule(f"{', '.join(texts)} -> {' '.join(result)}")(call)


def distances(call: Call) -> list[Axes | None]:
    """Norms of the differences of all pairs of rows: a position that is zero on both sides adds nothing."""
    return Rule("*b m k, *b n k -> *b m n", macs=("*b m k n",), summed={"k": (0, 1)})(call)


def _runs(call: Call) -> str:
    """The sign of an axis of matrices: they may go where the ends of runs say that their runs are empty then."""
    operand = call.operand(2)
    meaning = operand.meaning if operand is not None else None
    known = meaning is not None and meaning.kind == ENDS and operand is not None and len(operand.axes or ()) == 1
    if not known:
        return "e!"
    assert meaning is not None
    return "e" if call.space.find(call.axes(2)[0]) is call.space.find(meaning.axis) else "e!"


def grouped(call: Call) -> list[Axes | None]:
    """Runs of rows, which end at ``offs``, each times a matrix of its own, or matrices in pairs.

    Kernels take rows of a multiple of 16 bytes: 8 positions, in the narrowest type, are its units.
    """
    ranks = len(call.axes(0)), len(call.axes(1))
    if ranks not in _GROUPED:
        raise Declined("runs of a summed axis")
    if any(not isinstance(size, int) or size % 8 for size in (call.axes(0)[-1].size, call.axes(1)[-1].size)):
        raise Declined("rows of a number of bytes that its kernels do not take")
    return _GROUPED[ranks](call)


def _of_runs(call: Call) -> str:
    matrices = _runs(call)
    return f"t! (k 8), {matrices} (k 8) (n 8), {matrices}? -> t (n 8)"


_EXPERTS = {"e": "expert"}
_GROUPED = {
    (2, 3): Rule(_of_runs, macs=("t k n 64",), statistics="e", roles=_EXPERTS),
    (3, 3): Rule("e m (k 8), e (k 8) (n 8), -? -> e m (n 8)", macs=("e m k n 64",)),
}
bind("aten._grouped_mm", grouped, "self mat2 offs")
GROUPED = Rule(lambda call: f"t! k, {_runs(call)} k n, e -> t n", macs=("t k n",), statistics="e", roles=_EXPERTS)
bind("transformers.grouped_mm_fallback", GROUPED, "input weight offs")
bind("aten.tensordot", tensordot, "self other")
bind("aten.chain_matmul", chain, "matrices")
bind("aten.linalg_multi_dot", chain, "tensors")
bind("aten.cdist aten._cdist_forward aten._euclidean_dist", distances, "x1 x2")


bind("aten._pdist_forward aten.pdist", Rule("n! k -> m", summed={"k": (0,)}), "self")


def cross(call: Call) -> list[Axes | None]:
    """Three components along a dimension, the first of size 3 if none is stated: no cut may make an earlier one so."""
    results = pointwise(call)
    stated = call.attribute("dim")
    at = [int(stated)] if stated is not None else range([axis.size for axis in results[0] or ()].index(3) + 1)
    for number in (0, 1):
        call.pin([call.axes(number)[dim] for dim in at], "three components along the first dimension of that size")
    return results


bind("aten.cross aten.linalg_cross", cross, "self other")


def _pairs(call: Call, kind: str, keep: bool) -> list[Axes | None]:
    """Rows of two tensors meet along one dimension, which is gone or of size 1 after."""
    a, b = call.axes(0), call.axes(1)
    rank = max(len(a), len(b))
    at = int(call.attribute("dim", -1)) % rank
    if at < rank - min(len(a), len(b)):
        raise Declined("a dimension that one of its operands lacks")
    places = tuple((number, at - rank + len(axes)) for number, axes in enumerate((a, b)))
    result = []
    for dim in range(-rank, 0):
        own = [axes[dim] for axes in (a, b) if len(axes) >= -dim]
        axis = own[0] if len(own) == 1 else call.broadcast(*own)
        if dim != at - rank:
            result.append(axis)
        else:
            wide = tuple(place for place, one in zip(places, own, strict=True) if one.size != 1)
            call.mixes.append(Mix(kind, axis, wide))
            result += [call.space.leaf(1)] if keep else []
    return [tuple(result)]


def products_of_pairs(call: Call) -> list[Axes | None]:
    """Inner products, perhaps of normalised rows."""
    return _pairs(call, "sum", keep=False)


def distance_of_pairs(call: Call) -> list[Axes | None]:
    """A small number is added to each difference, so that a removed position is not a zero."""
    return _pairs(call, "statistics", bool(call.attribute("keepdim", False)))


bind("aten.linalg_vecdot", products_of_pairs, "x y")
bind("aten.cosine_similarity", products_of_pairs, "x1 x2")
bind("aten.pairwise_distance", distance_of_pairs, "x1 x2")
