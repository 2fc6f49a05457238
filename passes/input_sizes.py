"""Read symbolic sizes off the graph's inputs where they are computed from tensors that may be cut.

Exporters spell a batch size as ``Shape(query)[0] / heads``. Once heads are cut that is no longer the batch size; read
off an input, it stays right, and the heads are free.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_reader import read_with_sizes
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import Names, constant
from graphprune.sizes import Size, Symbolic

__all__ = ["read_sizes_off_inputs"]


def read_sizes_off_inputs(model: ir.Model) -> int:
    """Replace single numbers that equal a named dimension of an input; returns how many were replaced."""
    divisions = [node for node in nodes(model) if node.op_type == "Div" and node.graph is model.graph]
    if not any(node.outputs[0].dtype in (ir.DataType.INT64, ir.DataType.INT32) for node in divisions):
        return 0
    places = {
        dim.value: (value, position)
        for value in reversed(model.graph.inputs)
        for position, dim in enumerate(value.shape or ())
        if isinstance(dim, ir.SymbolicDim) and dim.value
    }
    _, elements = read_with_sizes(model)
    count = 0
    sources: dict[str, ir.Value] = {}
    for node in divisions:
        value = node.outputs[0]
        known = elements.get(value.name or "")
        name = _symbol(known[0].value) if known is not None and len(known) == 1 else None
        if name is None or name not in places or value.dtype != ir.DataType.INT64 or value.is_graph_output():
            continue
        if name not in sources:
            sources[name] = _read(model, name, *places[name])
        value.replace_all_uses_with(_shaped(model, sources[name], value))
        count += 1
    return count


def _symbol(size: Size | None) -> str | None:
    alone = isinstance(size, Symbolic) and size.coefficient == 1 and len(size.symbols) == 1
    return size.symbols[0] if alone and isinstance(size, Symbolic) else None


def _read(model: ir.Model, name: str, source: ir.Value, position: int) -> ir.Value:
    """A vector of one element: the extent of dimension ``position`` of ``source``."""
    names = Names(model)
    base = names.fresh(f"{source.name}_{name}")
    index = constant(model, f"{base}_position", np.asarray([position], dtype=np.int64))
    shape = ir.node("Shape", [source], name=f"{base}_shape")
    gather = ir.node("Gather", [shape.outputs[0], index], {"axis": 0}, name=base)
    _state(shape.outputs[0], f"{base}_shape", [len(source.shape or ())])
    _state(gather.outputs[0], base, [1])
    first = model.graph[0]
    model.graph.insert_before(first, (shape, gather))
    return gather.outputs[0]


def _state(value: ir.Value, name: str, shape: list[int]) -> None:
    value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.INT64)


def _shaped(model: ir.Model, vector: ir.Value, like: ir.Value) -> ir.Value:
    """``vector`` as a scalar where ``like`` is one."""
    if like.shape is None or len(like.shape):
        return vector
    node = like.producer()
    assert node is not None
    name = Names(model).fresh(f"{node.name}_scalar")
    target = constant(model, f"{name}_shape", np.asarray([], dtype=np.int64))
    scalar = ir.node("Reshape", [vector, target], name=name)
    _state(scalar.outputs[0], name, [])
    model.graph.insert_before(node, scalar)
    return scalar.outputs[0]
