"""How facts pass through operators: only what this table declares; any other operator makes tensors nobody knows.

Constants pass through continuous functions only, because they are computed to rounding and a step would not forgive it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from graphprune.passes.lossless_bounds import Interval, affine, bounds_of, widened
from graphprune.passes.lossless_facts import MAX_ENTRIES, Array, Fact, expand, fact, number
from graphprune.rules.call import Call, Declined
from graphprune.sizes import Size

__all__ = ["RULES", "FactRule", "Known", "Sizes", "operand", "rule"]

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


def rule(operators: str) -> Callable[[FactRule], FactRule]:
    """Enter the decorated function into the table for ``operators``: ONNX's own, or others with their domain."""

    def enter(function: FactRule) -> FactRule:
        RULES.update(
            dict.fromkeys((f"onnx.{name}" if "." not in name else name for name in operators.split()), function)
        )
        return function

    return enter


def operand(known: Known, node: ir.Node, index: int = 0) -> tuple[Fact, Sizes]:
    """What holds for an operand, and its sizes.

    Raises:
        Declined: its rank is unknown.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    found, sizes = known.fact(value), known.sizes(value)
    if found is None or sizes is None:
        raise Declined("an operand of unknown rank")
    return found, sizes


# -- element by element -------------------------------------------------------------------------------------------


@rule(
    "Add Sub Mul Div Pow Max Min Sum Mean PRelu Abs Celu Cos Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish "
    "Neg Reciprocal Relu Selu Sigmoid Sin Softplus Softsign Sqrt Swish Tanh Where "
    "com.microsoft.QuickGelu com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.BiasGelu"
)
def _pointwise(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    operands = [operand(known, node, index) for index, value in enumerate(node.inputs) if value is not None]
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


@rule("Clip Dropout Identity Cast")
def _first_only(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Functions of the first operand; Clip has bounds, Dropout is the identity unless it trains."""
    x, _ = operand(known, node)
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


@rule("BatchNormalization InstanceNormalization")
def _normalization(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """A channel whose scale is zero is its bias; batch normalisation also maps constants to constants."""
    x, sizes = operand(known, node)
    if call.attribute("training_mode", 0) or len(sizes) < 2 or not isinstance(sizes[1], int):
        raise Declined("statistics of the input")
    if call.op == "onnx.InstanceNormalization" and any(size != 1 for size in x.label.shape[2:]):
        raise Declined("statistics of what is known apart")
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


@rule("MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool")
def _pool(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Each channel by itself; the maximum and the mean of one number are that number, where no zeros are padded in."""
    x, _ = operand(known, node)
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


@rule("ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceSumSquare")
def _reduce(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
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


@rule("Resize Upsample")
def _resize(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Interpolation of one number is that number."""
    x, sizes = operand(known, node)
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
