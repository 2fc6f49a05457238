"""Write a Gather that only lays positions out anew as the Reshape and Transpose that it is.

PyTorch's ``as_strided`` becomes a lookup of every position of a flat tensor at constant indices. Where each position is
taken once, ``index[i, j, ...] = i * a + j * b + ...`` with dense strides, the lookup moves whole axes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.frontends.onnx_attributes import integer
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import Names, constant, is_constant

__all__ = ["spell_strided_gathers"]

_LIMIT = 1 << 24
"""Elements of the largest index that is looked at."""


def spell_strided_gathers(model: ir.Model) -> int:
    """Replace lookups of all positions of a vector in strided order; returns how many were replaced."""
    count = 0
    for node in list(nodes(model)):
        if node.op_type != "Gather" or node.domain != "" or integer(node, "axis", 0) not in (0, -1):
            continue
        source, indices = node.inputs
        if source is None or indices is None or source.shape is None or len(source.shape) != 1:
            continue
        tensor = indices.const_value
        if not is_constant(indices) or tensor is None or tensor.size > _LIMIT or len(tensor.shape) < 2:
            continue
        if tensor.size == source.shape[0] and (order := _order(tensor.numpy())) is not None:
            _replace(model, node, source, tensor.numpy().shape, order)
            count += 1
    return count


def _order(index: npt.NDArray[np.integer]) -> list[int] | None:
    """Dimensions of ``index`` from the slowest to the fastest, None where it is not all positions in strided order.

    >>> _order(np.array([[0, 2, 4], [1, 3, 5]])), _order(np.array([[0, 1], [1, 2]]))
    ([1, 0], None)
    """
    steps = [int(index[tuple(int(d == dim) for d in range(index.ndim))]) if extent > 1 else 0
             for dim, extent in enumerate(index.shape)]  # fmt: skip
    order = sorted(range(index.ndim), key=lambda dim: (-steps[dim], dim))
    rows = np.arange(index.size).reshape([index.shape[dim] for dim in order])
    return order if np.array_equal(rows.transpose(np.argsort(order)), index) else None


def _replace(model: ir.Model, node: ir.Node, source: ir.Value, shape: tuple[int, ...], order: list[int]) -> None:
    names = Names(model)
    extents = [shape[dim] for dim in order]
    target = constant(model, names.fresh(f"{node.name}_rows"), np.asarray(extents, dtype=np.int64))
    reshape = ir.node("Reshape", [source, target], name=names.fresh(f"{node.name}_reshape"))
    rows, result = reshape.outputs[0], node.outputs[0]
    rows.name, rows.type, rows.shape = names.fresh(f"{node.name}_laid_out"), result.type, ir.Shape(extents)
    perm = [int(dim) for dim in np.argsort(order)]
    transpose = ir.node("Transpose", [rows], {"perm": perm}, name=names.fresh(f"{node.name}_transpose"))
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [reshape, transpose], [result], transpose.outputs)
