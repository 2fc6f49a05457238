"""Refuse convolutions whose weights do not fit their input: onnx's shape inference looks at neither channels nor bias.

With W as stored, C channels and g groups::

    Conv           X: n (g i) *s   W: (g o) i *k   B: (g o)
    ConvTranspose  X: n (g i) *s   W: (g i) o *k   B: (g o)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

__all__ = ["faults"]

Dims = Sequence[int | None]


def faults(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Yield each convolution of an inferred graph that contradicts its operands, and how."""
    shapes = _shapes(graph)
    for node in graph.node:
        convolves = node.op_type in ("Conv", "ConvTranspose") and node.domain == "" and len(node.input) > 1
        if convolves and (fault := _fault(node, shapes)):
            yield node, fault


def _shapes(graph: onnx.GraphProto) -> dict[str, Dims]:
    shapes: dict[str, Dims] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    for tensor in graph.initializer:
        shapes[tensor.name] = list(tensor.dims)
    return shapes


def _fault(node: onnx.NodeProto, shapes: Mapping[str, Dims]) -> str | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    group = attributes["group"].i if "group" in attributes else 1
    if group < 1:
        return f"it has {group} groups"
    weight, data = shapes.get(node.input[1]), shapes.get(node.input[0])
    if weight is None:
        return None
    shown = "x".join("?" if size is None else str(size) for size in weight)
    if len(weight) < 3 or (data is not None and len(data) != len(weight)):
        return f"its weight has {len(weight)} axes ({shown}) where its input has {len(data) if data else 'more'}"
    if "kernel_shape" in attributes and _differ(list(attributes["kernel_shape"].ints), weight[2:]):
        return f"its weight {shown} does not have the kernel {list(attributes['kernel_shape'].ints)}"
    first, second = weight[0], weight[1]
    if first is None or second is None:
        return None
    transposed = node.op_type == "ConvTranspose"
    takes, gives = (first, second * group) if transposed else (second * group, first)
    if first % group:
        return f"its weight {shown} does not divide into {group} groups"
    if data is not None and _differ([data[1]], [takes]):
        return f"its weight {shown} in {group} groups takes {takes} channels but its input has {data[1]}"
    bias = shapes.get(node.input[2]) if len(node.input) > 2 else None
    if bias is not None and (len(bias) != 1 or _differ(bias, [gives])):
        return f"its bias has the shape {list(bias)} where it gives {gives} channels"
    return None


def _differ(a: Dims, b: Dims) -> bool:
    """Return whether two lists of sizes cannot be the same."""
    return len(a) != len(b) or any(x is not None and y is not None and x != y for x, y in zip(a, b, strict=True))
