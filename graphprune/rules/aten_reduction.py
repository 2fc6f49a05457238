"""ATen's reductions, running reductions and sorting (algebra: :mod:`graphprune.rules.reduction`).

Sums and norms are equal to zeroing; means, extremes and the like are statistics over the kept positions. Where a result
counts positions, what reads it decides whether any may go (:mod:`graphprune.rules.positions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.axes import ONE
from graphprune.rules.call import AttributeTarget, Axes, Call, Declined, Meaning, Mix
from graphprune.rules.positions import COUNTS, ENDS, PLACES, addressed, located, passed_on
from graphprune.rules.reduction import largest
from graphprune.rules.table import bind


def _dims(call: Call, rank: int) -> list[int]:
    """The dimensions that are reduced: those listed, all by default."""
    stated = call.attribute("dim")
    listed = [stated] if isinstance(stated, int) else list(stated or range(rank))
    return sorted(dim % rank for dim in listed) if rank else []


def _reduced(call: Call, kind: str, dims: Sequence[int]) -> Axes:
    x = call.axes(0)
    for dim in dims:
        call.mixes.append(Mix(kind, x[dim], ((0, dim),)))
    return _without(call, dims)


def _without(call: Call, dims: Sequence[int]) -> Axes:
    """The axes of operand 0 where ``dims`` are gone, or kept as ones of size 1."""
    keep = bool(call.attribute("keepdim", False))
    return tuple(ONE if dim in dims else axis for dim, axis in enumerate(call.axes(0)) if keep or dim not in dims)


def reduction(kind: str) -> Callable[[Call], list[Axes | None]]:
    """The rule of a reduction that is a ``"sum"``, or one of ``"statistics"``."""

    def apply(call: Call) -> list[Axes | None]:
        return [_reduced(call, kind, _dims(call, len(call.axes(0))))] * max(len(call.result_sizes), 1)

    return apply


def extreme(call: Call) -> list[Axes | None]:
    """Values along a dimension, and where they were found."""
    x = call.axes(0)
    dims = _dims(call, len(x))
    if call.result(1) is None or not dims:
        return [_reduced(call, "statistics", dims)] * max(len(call.result_sizes), 1)
    located(call, dims[0], 1)
    return [_without(call, dims)] * max(len(call.result_sizes), 1)


def place(call: Call) -> list[Axes | None]:
    """Results are positions, those of the flat tensor if no dimension is said."""
    x = call.axes(0)
    dims = _dims(call, len(x))
    if call.attribute("dim") is None:
        call.pin(x, PLACES)
    elif dims:
        located(call, dims[0], 0)
    return [_without(call, dims)]


def kth(call: Call) -> list[Axes | None]:
    """An entry of which so many are less: how many there are counts."""
    x = call.axes(0)
    dims = _dims(call, len(x))
    call.pin([x[dim] for dim in dims], PLACES)
    return [_without(call, dims)] * max(len(call.result_sizes), 1)


def order(call: Call) -> list[Axes | None]:
    """Entries in another order along a dimension, and where they were."""
    x = call.axes(0)
    if not x:
        return [()] * max(len(call.result_sizes), 1)
    call.pin(x[int(call.attribute("dim", -1)) % len(x)], PLACES)
    if len(call.result_sizes) > 1:
        passed_on(call)
    return [x] * max(len(call.result_sizes), 1)


def best(call: Call) -> list[Axes | None]:
    """The largest entries along a dimension, or the least, and where they were."""
    x = call.axes(0)
    known = next((sizes for sizes in call.result_sizes if sizes is not None), None)
    if not x:
        return [()] * max(len(call.result_sizes), 1)
    at = int(call.attribute("dim", -1)) % len(x)
    own = largest(call, at, known[at] if known is not None else None)
    return [(*x[:at], own, *x[at + 1 :])] * max(len(call.result_sizes), 1)


def running(kind: str) -> Callable[[Call], list[Axes | None]]:
    """The rule of a reduction of what came so far along a dimension; places of extremes pin it."""

    def apply(call: Call) -> list[Axes | None]:
        x = call.axes(0)
        at = int(call.attribute("dim")) % max(len(x), 1)
        if len(call.result_sizes) > 1 and call.result(1) is not None:
            call.pin(x[at : at + 1], "its positions are the result")
        if x:
            call.mixes.append(Mix(kind, x[at], ((0, at),), ((0, at),) if kind == "statistics" else ()))
        if kind == "sum":
            _ends(call)
        return [x] * max(len(call.result_sizes), 1)

    return apply


def _ends(call: Call) -> None:
    """Running sums of how often positions of an axis were chosen."""
    operand = call.operands[0]
    meaning = operand.meaning if operand is not None else None
    if meaning is not None and meaning.kind == COUNTS:
        call.meanings[0] = meaning._replace(kind=ENDS)


def histogram(call: Call) -> list[Axes | None]:
    """How many entries lie in each of some intervals: of positions, how often each of them occurs."""
    whole = call.attribute("bins", 100)
    classes = call.space.leaf(whole) if isinstance(whole, int) and whole > 1 else None
    bounds = call.attribute("min", 0), call.attribute("max", 0)
    if classes is None or bounds != (0, whole - 1) or not addressed(call, 0, classes):
        call.pin(call.axes(0), "its results are counts")
        return call.unknown_results("its results are counts")
    call.site(AttributeTarget("bins"), classes)
    call.site(AttributeTarget("max"), classes, offset=-1)
    call.pin(call.axes(0), "its results are counts")
    call.meanings[0] = Meaning(COUNTS, classes, call.why("its results are counts"))
    return [(classes,)]


def norm(call: Call) -> list[Axes | None]:
    """A norm of vectors: a sum of powers, or the largest magnitude, to which zeros add nothing."""
    order = call.attribute("ord", 2)
    if not isinstance(order, int | float):
        raise Declined("a norm of matrices")
    kind = "sum" if order >= 0 else "statistics"
    return [_reduced(call, kind, _dims(call, len(call.axes(0))))]


def any_norm(call: Call) -> list[Axes | None]:
    """A norm of vectors, or of matrices if two dimensions are meant and an order is stated."""
    dims = _dims(call, len(call.axes(0)))
    if call.attribute("ord") is not None and len(dims) > 1:
        return matrix_norm(call)
    return norm(call)


def matrix_norm(call: Call) -> list[Axes | None]:
    """Frobenius norms are those of vectors; sums of columns or rows are statistics of sums."""
    if call.attribute("ord", "fro") != "fro":
        raise Declined("a norm of matrices")
    return [_reduced(call, "sum", _dims(call, len(call.axes(0))))]


def distance(call: Call) -> list[Axes | None]:
    """The norm of a difference: what meets a position that is repeated is not zero where the wider one is."""
    a, b = call.axes(0), call.axes(1)
    if len(a) != len(b) or call.attribute("p", 2) < 0:
        raise Declined("a norm that is not a sum")
    for dim, (one, other) in enumerate(zip(a, b, strict=True)):
        axis = call.broadcast(one, other)
        same = one.size == other.size
        places = tuple((number, dim) for number, own in enumerate((one, other)) if same or own.size != 1)
        call.mixes.append(Mix("sum" if same else "statistics", axis, places))
    return [()]


def quantiles(call: Call) -> list[Axes | None]:
    """Some quantiles of each slice, which come first where there is a list of them."""
    levels = call.axes(1) if call.operand(1) is not None else ()
    return [(*levels, *_reduced(call, "statistics", _dims(call, len(call.axes(0)))))]


SUM, STATISTICS = reduction("sum"), reduction("statistics")


def differences(call: Call) -> list[Axes | None]:
    """Differences of neighbours along one dimension, with what is put before and after it."""
    x, known = call.axes(0), call.result()
    at = int(call.attribute("dim", -1)) % len(x)
    for number, operand in enumerate(call.operands):
        if operand is not None:
            axes = call.axes(number)
            call.pin(axes[at], "neighbours are subtracted")
            for dim in set(range(len(x))) - {at}:
                call.unify(x[dim], axes[dim])
    made = call.fixed(known[at] if known else None, "neighbours are subtracted")
    return [(*x[:at], made, *x[at + 1 :])]


bind("aten.sum aten.nansum aten.count_nonzero aten.any", SUM, "self")
bind("aten.all aten.amax aten.amin aten.aminmax aten.logsumexp aten.mean aten.nanmean", STATISTICS, "self")
bind("aten.prod aten.special_logsumexp aten.std aten.std_mean aten.var aten.var_mean", STATISTICS, "self")
bind("aten.max aten.median aten.min aten.nanmedian", extreme, "self")
bind("aten.max.default aten.median.default aten.min.default aten.nanmedian.default", STATISTICS, "self")
bind("aten.nanquantile aten.quantile", quantiles, "self q")
bind("aten.argmax aten.argmin", place, "self")
bind("aten.kthvalue", kth, "self")
bind("aten.diff", differences, "self prepend append")
bind("aten.mode", extreme, "self")
bind("aten.argsort aten.sort", order, "self")
bind("aten.topk", best, "self")
bind("aten.msort", order, "self", dim=0)
bind("aten.cumsum", running("sum"), "self")
bind("aten.histc", histogram, "self")
bind("aten.cummax aten.cummin aten.cumprod aten.logcumsumexp", running("statistics"), "self")
bind("aten.linalg_vector_norm", norm, "self")
bind("aten.norm", norm, "self", ord="p")
bind("aten.linalg_norm", any_norm, "self")
bind("aten.frobenius_norm aten.linalg_matrix_norm", matrix_norm, "self")
bind("aten.dist", distance, "self other")
