"""Finds chains of movement operators that only pick positions of one dimension.

A chain is run on the numbers 0, 1, 2, ... laid out in the shape of what it starts from; where it comes down to picking
positions ``index`` of one dimension, ``result == take(root, index, dim)`` holds number by number. Symbolic dimensions
are given two different sizes, since what movement does to them depends on no other property of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphprune.frontends.onnx_walk import nodes as all_nodes
from graphprune.passes.tensors import is_constant

__all__ = ["Movement", "movements"]

_MOVEMENT = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip

_UNDERSTOOD = frozenset({"Concat", "Gather", "Identity", "Slice", "Split"})
"""What the analysis follows position by position anyway."""

_MAX_NODES = 32
_MAX_ELEMENTS = 1 << 22
_SAMPLES = (2, 3)
"""Sizes of a symbolic dimension; further ones count up from these."""


@dataclass(frozen=True, slots=True)
class Movement:
    """``result`` holds the positions ``index`` of dimension ``dim`` of ``root``, and nothing else."""

    root: ir.Value
    result: ir.Value
    dim: int
    index: tuple[int, ...]


def movements(model: ir.Model) -> list[Movement]:
    """The longest such chain that ends at each value which something other than movement reads."""
    order = {node: number for number, node in enumerate(all_nodes(model))}
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    found: list[Movement] = []
    for node in order:
        for output in node.outputs:
            if _moves(node) and _read_by_others(output):
                found.extend(_longest(output, order, opsets))
    return found


def _longest(result: ir.Value, order: dict[ir.Node, int], opsets: list[onnx.OperatorSetIdProto]) -> list[Movement]:
    for root, nodes in reversed(list(_roots(result, order))):
        if any(node.op_type not in _UNDERSTOOD for node in nodes) and _similar(root, result):
            movement = _traced(root, result, nodes, opsets)
            if movement is not None:
                return [movement]
    return []


def _moves(node: ir.Node) -> bool:
    """Whether a node moves its first operand (all of them, for Concat) as constants tell it to."""
    if node.domain != "" or node.op_type not in _MOVEMENT:
        return False
    rest = [] if node.op_type == "Concat" else node.inputs[1:]
    return all(value is None or is_constant(value) for value in rest)


def _read_by_others(value: ir.Value) -> bool:
    return value.is_graph_output() or any(not _moves(user) for user, _ in value.uses())


def _roots(result: ir.Value, order: dict[ir.Node, int]) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """Values that everything in ``result`` comes through, nearest first, and the nodes between, in reverse order."""
    frontier: dict[ir.Value, None] = {result: None}
    nodes: list[ir.Node] = []
    while len(nodes) < _MAX_NODES:
        made = [value for value in frontier if (node := value.producer()) is not None and node in order]
        if not made:
            return
        latest = max(made, key=lambda value: order[value.producer()])  # type: ignore[index]
        node = latest.producer()
        assert node is not None
        if not _moves(node) or node.graph is not result.graph:
            return
        nodes.append(node)
        for output in node.outputs:
            frontier.pop(output, None)
        inputs = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        frontier.update((value, None) for value in inputs if value is not None)
        if len(frontier) == 1:
            yield next(iter(frontier)), list(nodes)


def _similar(root: ir.Value, result: ir.Value) -> bool:
    """Whether two values have one rank and, as far as they are known, the same sizes but for one dimension."""
    if root.shape is None or result.shape is None or len(root.shape) != len(result.shape):
        return False
    pairs = zip(root.shape, result.shape, strict=True)
    return sum(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs) <= 1


def _traced(
    root: ir.Value, result: ir.Value, nodes: list[ir.Node], opsets: list[onnx.OperatorSetIdProto]
) -> Movement | None:
    """What the chain does, if it picks positions of one dimension."""
    picked: set[tuple[int, tuple[int, ...]]] = set()
    for sample in _SAMPLES:
        shape = _sampled(root, sample)
        if shape is None or math.prod(shape) > _MAX_ELEMENTS:
            return None
        numbers = np.arange(math.prod(shape)).reshape(shape)
        moved = _run(root, result, nodes, opsets, numbers)
        found = None if moved is None else _picking(numbers, moved)
        if found is None:
            return None
        picked.add(found)
        if root.shape is not None and root.shape.is_static():
            break
    return Movement(root, result, *picked.pop()) if len(picked) == 1 else None


def _sampled(value: ir.Value, first: int) -> tuple[int, ...] | None:
    """The shape of a value with a size of its own for each symbol."""
    sizes: dict[Any, int] = {}
    if value.shape is None:
        return None
    return tuple(
        dim if isinstance(dim, int) else sizes.setdefault(dim.value or object(), first + len(sizes))
        for dim in value.shape
    )


def _run(
    root: ir.Value,
    result: ir.Value,
    nodes: list[ir.Node],
    opsets: list[onnx.OperatorSetIdProto],
    numbers: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64] | None:
    """The chain on given numbers, in ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    graph = onnx.GraphProto(name="movement")
    graph.input.append(onnx.helper.make_tensor_value_info(root.name or "", onnx.TensorProto.INT64, None))
    graph.output.append(onnx.ValueInfoProto(name=result.name or ""))
    held: set[str] = set()
    for node in reversed(nodes):
        graph.node.append(ir.serde.serialize_node(node))
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.name and value.name not in held:
                held.add(value.name)
                graph.initializer.append(onnx.numpy_helper.from_array(value.const_value.numpy(), value.name))
    try:
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        (moved,) = ReferenceEvaluator(model).run(None, {root.name or "": numbers})
    except Exception:  # whatever the reference implementation cannot run stays as it is
        return None
    return moved if isinstance(moved, np.ndarray) else None


def _picking(numbers: npt.NDArray[np.int64], moved: npt.NDArray[np.int64]) -> tuple[int, tuple[int, ...]] | None:
    """The dimension and positions that ``moved`` takes of ``numbers``."""
    if moved.ndim != numbers.ndim or moved.size == 0:
        return None
    unlike = [dim for dim in range(moved.ndim) if moved.shape[dim] != numbers.shape[dim]]
    if len(unlike) > 1:
        return None
    for dim in unlike or range(moved.ndim):
        stride = math.prod(numbers.shape[dim + 1 :])
        first = np.moveaxis(moved, dim, 0).reshape(moved.shape[dim], -1)[:, 0]
        index = first // stride % numbers.shape[dim]
        if np.array_equal(np.take(numbers, index, dim), moved):
            return dim, tuple(index.tolist())
    return None
