"""Shapes that follow from partly known shape vectors, and whatever follows from those.

ONNX's own inference gives up on a Reshape whose target it cannot follow, and with it on everything behind. Here one
walk in graph order works the targets out element by element and infers the nodes behind them one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs, shape_inference

from graphprune.frontends.element_arithmetic import UNKNOWN, Element, known
from graphprune.frontends.onnx_attributes import integer, tensor
from graphprune.frontends.onnx_walk import nodes
from graphprune.frontends.shape_contents import Contents, Elements
from graphprune.frontends.slice_shape import sliced_dims

__all__ = ["complete_shapes"]

Dims = list[Element]


def complete_shapes(model: ir.Model) -> Iterator[tuple[ir.Value, onnx.TypeProto]]:
    """Yield values with the types that this walk finds beyond what they carry; assign each before asking for the next.

    Nodes with bodies are left alone.
    """
    contents = Contents()
    opset = model.opset_imports.get("", 1)
    learned: set[ir.Value | None] = set()
    for node in nodes(model):
        vague = False
        for output in node.outputs:
            vague = vague or (output.shape is None and bool(output.name))
        shape = _SHAPES.get(node.op_type) if node.domain == "" else None
        if shape is not None and (vague or _has_unknown(node.outputs[0])):
            dims = shape(node, contents)
            element = node.outputs[0].dtype or _element(node)
            if dims is not None and element is not None:
                found = onnx.helper.make_tensor_type_proto(int(element), dims)
                if _improves(node.outputs[0], dims):
                    yield node.outputs[0], found
                    learned.add(node.outputs[0])
                    vague = False
        if vague or (learned and not learned.isdisjoint(node.inputs)):
            for output, type_proto in _infer(node, opset, contents):
                before = output.shape
                yield output, type_proto
                if output.shape is not before:
                    learned.add(output)
        contents.visit(node)


def _has_unknown(value: ir.Value) -> bool:
    return value.shape is not None and any(not isinstance(dim, int) and dim.value is None for dim in value.shape)


def _improves(value: ir.Value, dims: Dims) -> bool:
    """Return whether ``dims`` say more than the shape of ``value`` does."""
    if value.shape is None:
        return True
    if len(value.shape) != len(dims):
        return False
    return any(
        not isinstance(old, int) and old.value is None and new is not UNKNOWN
        for old, new in zip(value.shape, dims, strict=True)
    )


def _element(node: ir.Node) -> ir.DataType | None:
    """Return the element type of a ConstantOfShape's output, of the first input for others."""
    if node.op_type == "ConstantOfShape":
        filler = tensor(node, "value")
        return ir.DataType.FLOAT if filler is None else filler.dtype
    return None if node.inputs[0] is None else node.inputs[0].dtype


def _infer(node: ir.Node, opset: int, contents: Contents) -> Iterator[tuple[ir.Value, onnx.TypeProto]]:
    """Yield the outputs of one standard node with what ONNX infers from its inputs alone."""
    bodies = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    if node.domain != "" or not defs.has(node.op_type, opset) or node.op_type == "Slice":
        return
    if any(attribute.is_ref() or attribute.type in bodies for attribute in node.attributes.values()):
        return
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or not value.name:
            continue
        if value.type is None or value.shape is None:
            return
        info = onnx.ValueInfoProto()
        ir.serde.serialize_type_into(info.type, value.type)
        ir.serde.serialize_shape_into(info.type, value.shape)
        types[value.name] = info.type
        elements = contents.of(value)
        if elements is not None and known(elements) and value.dtype is not None:
            array = np.asarray(elements, dtype=value.dtype.numpy())
            data[value.name] = onnx.numpy_helper.from_array(array, value.name)
    proto = ir.serde.serialize_node(node)
    try:
        schema = defs.get_schema(node.op_type, opset)
        results = shape_inference.infer_node_outputs(schema, proto, types, data)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError, TypeError):
        return
    for output in node.outputs:
        if output.name and output.name in results:
            yield output, results[output.name]


def _dims(value: ir.Value | None) -> Dims | None:
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _target(elements: Elements | None) -> Dims | None:
    return None if elements is None or elements.ndim != 1 else elements.tolist()


def _reshape(node: ir.Node, contents: Contents) -> Dims | None:
    """Return the target, 0 being the input's own dimension and -1 whatever is left."""
    source, target = _dims(node.inputs[0]), _target(contents.of(node.inputs[1]) if len(node.inputs) > 1 else None)
    if target is None:
        return None
    if not integer(node, "allowzero", 0):
        for position, extent in enumerate(target):
            if extent == 0:
                target[position] = source[position] if source is not None and position < len(source) else UNKNOWN
    if -1 in target:
        at = target.index(-1)
        target[at] = UNKNOWN if source is None else _rest(source, [*target[:at], *target[at + 1 :]])
    return target


def _rest(source: Sequence[Element], others: Sequence[Element]) -> Element:
    """Return the product of ``source`` over that of ``others``, where names cancel."""
    left, right = list(source), list(others)
    if UNKNOWN in left or UNKNOWN in right:
        return UNKNOWN
    for name in [dim for dim in right if isinstance(dim, str)]:
        if name not in left:
            return UNKNOWN
        left.remove(name)
        right.remove(name)
    names = [dim for dim in left if isinstance(dim, str)]
    have = math.prod(dim for dim in left if isinstance(dim, int))
    taken = math.prod(dim for dim in right if isinstance(dim, int))
    if taken <= 0 or have % taken:
        return UNKNOWN
    if not names:
        return have // taken
    return names[0] if len(names) == 1 and have == taken else UNKNOWN


def _expand(node: ir.Node, contents: Contents) -> Dims | None:
    source, target = _dims(node.inputs[0]), _target(contents.of(node.inputs[1]))
    if source is None or target is None:
        return None
    rank = max(len(source), len(target))
    pairs = zip([1] * (rank - len(source)) + source, [1] * (rank - len(target)) + target, strict=True)
    return [_broadcast(a, b) for a, b in pairs]


def _broadcast(a: Element, b: Element) -> Element:
    if a == 1 or a == b:
        return b
    if b == 1:
        return a
    numbers = [dim for dim in (a, b) if isinstance(dim, int)]
    return numbers[0] if numbers else UNKNOWN


def _fill(node: ir.Node, contents: Contents) -> Dims | None:
    return _target(contents.of(node.inputs[0]))


def _slice(node: ir.Node, contents: Contents) -> Dims | None:
    source = _dims(node.inputs[0])
    if source is None or len(node.inputs) < 3:
        return None
    padded = [*node.inputs, None, None]
    starts, ends, axes, steps = (_numbers(contents.of(value)) for value in padded[1:5])
    if starts is None or ends is None or (padded[3] is not None and axes is None):
        return None
    if padded[4] is None:
        steps = [1] * len(starts)
    return None if steps is None else sliced_dims(source, starts, ends, axes, steps)


def _numbers(elements: Elements | None) -> list[int] | None:
    return None if elements is None or not known(elements) else [int(element) for element in elements.reshape(-1)]


def _concat(node: ir.Node, contents: Contents) -> Dims | None:
    """Concatenate along an axis that may be negative, which inference before opset 11 does not take."""
    parts = [_dims(value) for value in node.inputs]
    first = parts[0] if parts else None
    if not first or any(part is None or len(part) != len(first) for part in parts):
        return None
    axis = integer(node, "axis", 0)
    if not -len(first) <= axis < len(first):
        return None
    extents = [part[axis] for part in parts if part is not None]
    numbers = [extent for extent in extents if isinstance(extent, int)]
    first[axis] = sum(numbers) if len(numbers) == len(extents) else UNKNOWN
    return first


_SHAPES: dict[str, Callable[[ir.Node, Contents], Dims | None]] = {
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Expand": _expand,
    "Reshape": _reshape,
    "Slice": _slice,
}
