"""How facts pass through operators: only what this table declares; any other operator makes tensors nobody knows.

Constants pass through continuous functions only, because they are computed to rounding and a step would not forgive it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from graphprune.passes.lossless_bounds import Interval, affine, bounds_of, widened
from graphprune.passes.lossless_facts import MAX_ENTRIES, Array, Fact, expand, fact, number, opaque
from graphprune.rules.call import Call, Declined
from graphprune.sizes import Size, divide, product_size

__all__ = ["RULES", "Known"]

Sizes = tuple[Size, ...]


class Known(Protocol):
    """What a rule may ask."""

    def fact(self, value: ir.Value | None) -> Fact | None:
        """What holds for a value; None where its rank is unknown."""

    def sizes(self, value: ir.Value | None) -> Sizes | None:
        """The sizes of a value."""

    def constant(self, value: ir.Value | None) -> Array | None:
        """The contents of a value that is always the same."""

    def evaluate(self, node: ir.Node, arrays: Sequence[Array | None]) -> Array | None:
        """The first output of a node for given operands."""


FactRule = Callable[[Known, ir.Node, Call], list[Fact | None]]

RULES: dict[str, FactRule] = {}


def _rule(operators: str) -> Callable[[FactRule], FactRule]:
    def enter(function: FactRule) -> FactRule:
        RULES.update(
            dict.fromkeys((f"onnx.{name}" if "." not in name else name for name in operators.split()), function)
        )
        return function

    return enter


def _operand(known: Known, node: ir.Node, index: int = 0) -> tuple[Fact, Sizes]:
    value = node.inputs[index] if index < len(node.inputs) else None
    found, sizes = known.fact(value), known.sizes(value)
    if found is None or sizes is None:
        raise Declined("an operand of unknown rank")
    return found, sizes


# -- element by element -------------------------------------------------------------------------------------------


@_rule(
    "Add Sub Mul Div Pow Max Min Sum Mean PRelu Abs Celu Cos Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish "
    "Neg Reciprocal Relu Selu Sigmoid Sin Softplus Softsign Sqrt Swish Tanh Where "
    "com.microsoft.QuickGelu com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.BiasGelu"
)
def _pointwise(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    operands = [_operand(known, node, index) for index, value in enumerate(node.inputs) if value is not None]
    shape = np.broadcast_shapes(*(f.label.shape for f, _ in operands))
    if int(np.prod(shape)) > MAX_ENTRIES:
        raise Declined("too many entries")
    facts = [expand(f, sizes, shape) for f, sizes in operands]
    label = number(*(f.label for f in facts))
    constants = np.logical_and.reduce([f.known for f in facts])
    zero = np.zeros(shape, np.bool_)
    if call.op == "onnx.Mul":
        zero = np.logical_or.reduce([f.known & (f.value == 0) for f in facts])
    value = np.zeros(shape, facts[0].value.dtype)
    if (constants & ~zero).any():
        made = known.evaluate(node, [f.value[constants] for f in facts])
        if made is None or made.shape != (int(constants.sum()),):
            constants = zero
        else:
            value = value.astype(made.dtype)
            value[constants] = made
    value[zero] = 0
    constants = (constants | zero) & np.isfinite(value.astype(np.float64))
    return [fact(label, constants, value, _bounds(node, call, facts))]


def _bounds(node: ir.Node, call: Call, facts: Sequence[Fact]) -> Interval | None:
    dtype = node.outputs[0].dtype
    return None if dtype is None else bounds_of(call.op, [(f.low, f.high) for f in facts], dtype)


@_rule("Clip Dropout Identity Cast")
def _first_only(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Functions of the first operand; Clip has bounds, Dropout is the identity unless it trains."""
    x, _ = _operand(known, node)
    if call.op == "onnx.Identity":
        return [x]
    rest = [known.constant(value) for value in node.inputs[1:]]
    if call.op == "onnx.Dropout":
        if len(node.inputs) > 2 and node.inputs[2] is not None and (rest[1] is None or bool(rest[1].any())):
            raise Declined("dropout in training")
        return [x, None][: len(node.outputs)]
    if call.op == "onnx.Cast" and (node.outputs[0].dtype is None or not node.outputs[0].dtype.is_floating_point()):
        raise Declined("a cast to integers has steps")
    if any(array is None and value is not None for array, value in zip(rest, node.inputs[1:], strict=True)):
        raise Declined("computed bounds")
    bounds = _clipped(call, x, rest) if call.op == "onnx.Clip" else None
    if not x.known.any():
        return [fact(x.label, bounds=bounds)]
    made = known.evaluate(node, [x.value[x.known], *rest])
    if made is None:
        return [fact(x.label)]
    value = np.zeros(x.label.shape, made.dtype)
    value[x.known] = made
    return [fact(x.label, x.known, value, bounds)]


def _clipped(call: Call, x: Fact, rest: Sequence[Array | None]) -> Interval:
    given = [*rest, None, None][:2] if rest else [call.attribute("min"), call.attribute("max")]
    least, most = (default if a is None else float(a) for a, default in zip(given, (-np.inf, np.inf), strict=True))
    return np.minimum(np.maximum(x.low, least), most), np.minimum(np.maximum(x.high, least), most)


# -- normalisation ------------------------------------------------------------------------------------------------


@_rule("BatchNormalization InstanceNormalization")
def _normalization(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """A channel whose scale is zero is its bias; batch normalisation also maps constants to constants."""
    x, sizes = _operand(known, node)
    if call.attribute("training_mode", 0) or len(sizes) < 2 or not isinstance(sizes[1], int):
        raise Declined("statistics of the input")
    shape = list(x.label.shape)
    shape[1] = sizes[1]
    x = expand(x, sizes, shape)
    lines = [known.constant(value) for value in node.inputs[1:5]]
    if any(line is None or line.shape != (sizes[1],) for line in lines):
        raise Declined("computed parameters")
    columns = [line.reshape([-1] + [1] * (len(shape) - 2)) for line in lines if line is not None]
    label = number(x.label, *(np.broadcast_to(column, shape) for column in columns))
    scale, bias = columns[0].astype(np.float64), columns[1].astype(np.float64)
    constants = np.broadcast_to(scale == 0, shape)
    value = np.broadcast_to(bias, shape)
    if call.op == "onnx.BatchNormalization":
        mean, variance = columns[2].astype(np.float64), columns[3].astype(np.float64)
        with np.errstate(all="ignore"):
            normal = (x.value.astype(np.float64) - mean) / np.sqrt(variance + call.attribute("epsilon", 1e-5))
            value = np.where(constants, value, scale * normal + bias)
        constants = constants | x.known
    dtype = columns[1].dtype
    bounds = None
    if call.op == "onnx.BatchNormalization" and node.outputs[0].dtype is not None:
        slope = scale / np.sqrt(variance + call.attribute("epsilon", 1e-5))
        shift = bias - slope * mean
        bounds = affine((x.low, x.high), slope, shift, np.abs(bias) + np.abs(slope * mean), node.outputs[0].dtype)
    results: list[Fact | None] = [fact(label, constants & np.isfinite(value), value.astype(dtype), bounds)]
    return results + [None] * (len(node.outputs) - 1)


# -- pooling and reduction ----------------------------------------------------------------------------------------


@_rule("MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool")
def _pool(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Each channel by itself; the maximum and the mean of one number are that number, where no zeros are padded in."""
    x, _ = _operand(known, node)
    if any(size != 1 for size in x.label.shape[2:]):
        raise Declined("pools over known places")
    stays = "Max" in call.op or call.op == "onnx.GlobalAveragePool"
    if call.op == "onnx.AveragePool":
        padded = any(call.attribute("pads", ())) or call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        stays = not call.attribute("ceil_mode", 0) and not (padded and call.attribute("count_include_pad", 0))
    kept = x.known if stays else x.known & (x.value == 0)
    bounds: Interval | None = x.low, x.high
    if call.op == "onnx.AveragePool":  # what is padded may be counted
        bounds = np.minimum(x.low, 0), np.maximum(x.high, 0)
    elif "Lp" in call.op:
        bounds = None
    dtype = node.outputs[0].dtype
    bounds = None if bounds is None or dtype is None else widened(bounds, dtype)
    return [fact(x.label, kept, x.value, bounds), *[None] * (len(node.outputs) - 1)]


@_rule("ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceSumSquare")
def _reduce(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    dims = call.attribute("axes")
    if dims is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        dims = known.constant(node.inputs[1])
        if dims is None:
            raise Declined("computed dimensions")
    if dims is None or len(dims) == 0:
        if call.attribute("noop_with_empty_axes", 0):
            return [x]
        dims = range(len(sizes))
    gone = tuple({int(dim) % len(sizes) for dim in dims})
    if any(x.label.shape[dim] != 1 for dim in gone):
        raise Declined("reduces what is known apart")
    stays = call.op in ("onnx.ReduceMean", "onnx.ReduceMax", "onnx.ReduceMin")
    kept = x.known if stays else x.known & (x.value == 0)
    dtype = node.outputs[0].dtype
    result = fact(x.label, kept, x.value, widened((x.low, x.high), dtype) if stays and dtype is not None else None)
    return [result if call.attribute("keepdims", 1) else result.map(lambda a: a.squeeze(gone))]


@_rule("Resize Upsample")
def _resize(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Interpolation of one number is that number."""
    x, sizes = _operand(known, node)
    made = known.sizes(node.outputs[0])
    crops = call.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if made is None or crops or call.attribute("antialias", 0):
        raise Declined("more than interpolation")
    for dim, (before, after) in enumerate(zip(sizes, made, strict=True)):
        if x.label.shape[dim] != 1 and before != after:
            raise Declined("resizes what is known apart")
    dtype = node.outputs[0].dtype
    overshoots = dtype is None or call.attribute("mode", "nearest") in ("cubic", b"cubic")
    return [fact(x.label, x.known, x.value, None if overshoots or dtype is None else widened((x.low, x.high), dtype))]


# -- movement -----------------------------------------------------------------------------------------------------


@_rule("Transpose")
def _transpose(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    order = call.attribute("perm", range(len(sizes) - 1, -1, -1))
    return [x.map(lambda a: np.transpose(a, order))]


@_rule("Reshape Flatten Squeeze Unsqueeze")
def _reshape(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    target = known.sizes(node.outputs[0])
    if target is None:
        raise Declined("to an unknown shape")
    return [_reshaped(x, sizes, target)]


def _reshaped(x: Fact, sizes: Sizes, target: Sizes) -> Fact:
    """Read row by row: runs of dimensions with equal products become each other."""
    shape, made = list(x.label.shape), [1] * len(target)
    ins = [dim for dim, size in enumerate(sizes) if size != 1]
    outs = [dim for dim, size in enumerate(target) if size != 1]
    while ins and outs:
        left, right = [ins.pop(0)], [outs.pop(0)]
        while (have := product_size(sizes[d] for d in left)) != (want := product_size(target[d] for d in right)):
            grow = have < want if isinstance(have, int) and isinstance(want, int) else divide(want, have) is not None
            source, side = (ins, left) if grow else (outs, right)
            if not source:
                raise Declined("sizes cannot be matched")
            side.append(source.pop(0))
        if any(shape[d] != 1 for d in left):
            for d in left:
                shape[d] = _number(sizes[d])
            for d in right:
                made[d] = _number(target[d])
    if ins or outs or int(np.prod(shape)) > MAX_ENTRIES:
        raise Declined("sizes cannot be matched")
    return expand(x, sizes, shape).map(lambda a: a.reshape(made))


def _number(size: Size) -> int:
    if not isinstance(size, int):
        raise Declined("a symbolic size")
    return size


@_rule("Expand")
def _expand(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    target = known.sizes(node.outputs[0])
    if target is None:
        raise Declined("to an unknown shape")
    lead = len(target) - len(sizes)
    return [x.map(lambda a: a.reshape((1,) * lead + a.shape))]


@_rule("Concat")
def _concat(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    parts = [_operand(known, node, index) for index in range(len(node.inputs))]
    at = call.attribute("axis", 1) % len(parts[0][1])
    others = np.broadcast_shapes(*((*f.label.shape[:at], 1, *f.label.shape[at + 1 :]) for f, _ in parts))
    if any(f.known.any() or f.label.size > 1 for f, _ in parts):
        shapes = [(*others[:at], _number(sizes[at]), *others[at + 1 :]) for _, sizes in parts]
        if sum(int(np.prod(shape)) for shape in shapes) > MAX_ENTRIES:
            raise Declined("too many entries")
        facts = [expand(f, sizes, shape) for (f, sizes), shape in zip(parts, shapes, strict=True)]
        sources = [value.name if value is not None else "" for value in node.inputs]
        origin = np.concatenate(
            [np.full(f.label.shape, sources.index(s)) for f, s in zip(facts, sources, strict=True)], at
        )
        label, known_, value, low, high = (
            np.concatenate([getattr(f, name) for f in facts], at) for name in ("label", "known", "value", "low", "high")
        )
        return [fact(number(origin, label), known_, value, (low, high))]
    return [opaque(len(parts[0][1]))]


@_rule("Split")
def _split(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    at = call.attribute("axis", 0) % len(sizes)
    if x.label.shape[at] == 1:
        return [x] * len(node.outputs)
    results: list[Fact | None] = []
    start = 0
    for output in node.outputs:
        made = known.sizes(output)
        size = _number(made[at] if made is not None else sizes[at] * 0)
        places = range(start, start + size)
        results.append(x.map(lambda a, places=places: np.take(a, places, at)))
        start += size
    if start != sizes[at]:
        raise Declined("parts of unknown size")
    return results


@_rule("Slice")
def _slice(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    names = ("starts", "ends", "axes", "steps")
    given = [
        call.attribute(name) if len(node.inputs) == 1 else known.constant(_input(node, index))
        for index, name in enumerate(names, 1)
    ]
    starts, ends = given[0], given[1]
    dims = given[2] if given[2] is not None else range(len(sizes)) if starts is None else range(len(starts))
    cuts = [slice(None)] * len(sizes)
    for index, dim in enumerate(dims):
        at = int(dim) % len(sizes)
        if x.label.shape[at] == 1:
            continue
        step = 1 if given[3] is None and _input(node, 4) is None else None if given[3] is None else int(given[3][index])
        if starts is None or ends is None or step is None or step < 1:
            raise Declined("computed bounds")
        cuts[at] = slice(int(starts[index]), int(ends[index]), step)
    if starts is None and any(size != 1 for size in x.label.shape):
        raise Declined("computed bounds")
    return [x.map(lambda a: a[tuple(cuts)])]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


@_rule("Gather")
def _gather(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = _operand(known, node)
    index = known.constant(node.inputs[1])
    at = call.attribute("axis", 0) % len(sizes)
    if index is None or index.ndim > 1:
        raise Declined("computed positions")
    if x.label.shape[at] == 1:
        return [x if index.ndim else x.map(lambda a: a.squeeze(at))]
    return [x.map(lambda a: np.take(a, index.astype(np.int64), at))]


@_rule("Pad")
def _pad(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Only places are padded, and only a number equal to what is padded stays constant."""
    x, sizes = _operand(known, node)
    pads = call.attribute("pads", call.attribute("paddings"))
    pads = known.constant(_input(node, 1)) if pads is None else pads
    filler = (
        known.constant(_input(node, 2)) if _input(node, 2) is not None else np.asarray(call.attribute("value", 0.0))
    )
    if (
        pads is None
        or filler is None
        or _input(node, 3) is not None
        or call.attribute("mode", "constant") != "constant"
    ):
        raise Declined("padded by copies or at computed places")
    if any(x.label.shape[d] != 1 and (pads[d] or pads[d + len(sizes)]) for d in range(len(sizes))):
        raise Declined("padded where it is known apart")
    number_ = filler.reshape(())
    bounds = np.minimum(x.low, float(number_)), np.maximum(x.high, float(number_))
    return [fact(x.label, x.known & (x.value == number_), x.value, bounds)]
