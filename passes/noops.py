"""Remove nodes whose output is their input."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from graphprune.frontends.onnx_attributes import integer, integers
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import bypass, read_small

__all__ = ["name_cast_types", "remove_noops"]


def remove_noops(model: ir.Model) -> int:
    """By-pass every node that hands its first input on unchanged; returns how many are gone.

    Names of graph outputs stay, and with them a node that nothing else can take the name from. Values need the shapes
    of :func:`graphprune.frontends.onnx_shapes.infer_shapes`.
    """
    count = 0
    opset = model.opset_imports.get("", 1)
    for node in list(nodes(model)):
        test = _TESTS.get(node.op_type) if node.domain == "" else None
        if test is not None and node.inputs and node.outputs and test(node, opset):
            count += bypass(node)
    return count


def name_cast_types(model: ir.Model) -> int:
    """Turn each CastLike, whose type hangs on another value, into a Cast to that type; returns how many."""
    count = 0
    for node in nodes(model):
        if node.op_type != "CastLike" or node.domain != "" or len(node.inputs) != 2:
            continue
        like = node.inputs[1]
        if like is not None and like.dtype is not None and like.dtype != ir.DataType.UNDEFINED:
            node.op_type = "Cast"
            node.attributes["to"] = ir.AttrInt64("to", int(like.dtype))
            node.resize_inputs(1)
            count += 1
    return count


def _identity(node: ir.Node, opset: int) -> bool:
    return True


def _dropout(node: ir.Node, opset: int) -> bool:
    """Dropout drops nothing unless it is told, since opset 12 by an input, that it is training."""
    if opset < 7:
        return integer(node, "is_test", 0) == 1
    if opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = read_small(node.inputs[2])
    return training is not None and not training.any()


def _cast(node: ir.Node, opset: int) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == integer(node, "to", 0)


def _transpose(node: ir.Node, opset: int) -> bool:
    perm = integers(node, "perm")
    return perm is not None and perm == sorted(perm)


def _reshape(node: ir.Node, opset: int) -> bool:
    """A constant target repeats the input's shape: as numbers, as 0 for "the same", or as one -1."""
    source = node.inputs[0]
    target = read_small(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or source.shape is None or target is None or target.shape != (len(source.shape),):
        return False
    if integer(node, "allowzero", 0) and 0 in target:
        return False
    dims = list(source.shape)
    same = [extent in (0, dim) for extent, dim in zip(target.tolist(), dims, strict=True)]
    free = [extent == -1 for extent in target.tolist()]
    return all(a or b for a, b in zip(same, free, strict=True)) and sum(free) <= 1


def _flatten(node: ir.Node, opset: int) -> bool:
    source = node.inputs[0]
    flat = source is not None and source.shape is not None and len(source.shape) == 2
    return flat and integer(node, "axis", 1) in (1, -1)


def _expand(node: ir.Node, opset: int) -> bool:
    source = node.inputs[0]
    target = read_small(node.inputs[1])
    if source is None or source.shape is None or target is None or target.ndim != 1 or len(target) > len(source.shape):
        return False
    last = list(source.shape)[len(source.shape) - len(target) :]
    return all(extent in (1, dim) for extent, dim in zip(target.tolist(), last, strict=True))


def _single(node: ir.Node, opset: int) -> bool:
    return len(node.inputs) == 1


def _pad(node: ir.Node, opset: int) -> bool:
    if opset < 11:
        pads = integers(node, "pads")
        return pads is not None and not any(pads)
    amounts = read_small(node.inputs[1]) if len(node.inputs) > 1 else None
    return amounts is not None and not amounts.any()


_TESTS: dict[str, Callable[[ir.Node, int], bool]] = {
    "Cast": _cast,
    "Concat": _single,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _identity,
    "Max": _single,
    "Mean": _single,
    "Min": _single,
    "Pad": _pad,
    "Reshape": _reshape,
    "Sum": _single,
    "Transpose": _transpose,
}
