"""Weight changes that keep what a network computes when positions go: constants into biases, equal columns summed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes import Axis, Leaf
from graphprune.frontends.onnx_walk import nodes as all_nodes
from graphprune.passes.lossless_contractions import Contraction
from graphprune.passes.lossless_facts import Array
from graphprune.passes.lossless_reading import Reading
from graphprune.passes.lossless_weights import sum_columns
from graphprune.passes.tensors import Names, is_constant
from graphprune.selection import Selection, occurrences
from graphprune.structure import Structure

__all__ = ["ColumnSums", "fold_constants_into_biases"]

Targets = Mapping[Leaf, npt.NDArray[np.intp]]
"""For each leaf, which position takes the columns of each position over (itself where it stays)."""


def fold_constants_into_biases(
    model: ir.Model, structure: Structure, readings: Sequence[Reading], kept: Selection
) -> int:
    """Add what removed constant positions contribute to the bias behind each sum; returns how many were added to.

    ``kept`` keeps every position that is not constant or unread. ``structure`` learns the axes of new biases.
    """
    nodes = {node.name: node for node in all_nodes(model)}
    names = Names(model)
    count = 0
    for reading in readings:
        view = reading.contraction
        if view is None or reading.x is None or reading.unread is None:
            continue
        operand = reading.call.operands[reading.operand]
        assert operand is not None
        axes = structure.tensors[operand.name]
        assert axes is not None
        gone = ~kept.mask(axes[reading.dim]) & reading.x.known & (reading.x.value != 0) & ~reading.unread
        if gone.any():
            given = np.where(gone, reading.x.value.astype(np.float64), 0)
            _Bias(model, structure, names, nodes[reading.call.node], view).add(given)
            count += 1
    return count


class _Bias:
    """The bias behind one contraction."""

    def __init__(self, model: ir.Model, structure: Structure, names: Names, node: ir.Node, view: Contraction) -> None:
        self.model, self.structure, self.names, self.node, self.view = model, structure, names, node, view

    def add(self, given: npt.NDArray[np.float64]) -> None:
        """Add what the numbers ``given``, one for each position of the summed dimension, contribute."""
        change = self._contribution(given)
        dtype = self._weight().dtype.numpy()
        if self.view.addable:
            self._add_behind(change.astype(dtype))
            return
        assert self.view.bias is not None
        change /= self.view.beta
        old = self.node.inputs[self.view.bias] if self.view.bias < len(self.node.inputs) else None
        if old is not None:
            assert old.const_value is not None
            change += old.const_value.numpy().astype(np.float64)
        new = change.astype(dtype)
        if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
            old.const_value = ir.tensor(new, name=old.name)
            return
        if old is None:
            self.node.resize_inputs(max(len(self.node.inputs), self.view.bias + 1))
        self.node.replace_input_with(self.view.bias, self._initializer(new))

    def _contribution(self, given: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``alpha * sum over columns of weight * given``, one for each row."""
        view = self.view
        array = self._weight().numpy()
        by_group = given.reshape(view.groups, -1)
        columns = np.flatnonzero(by_group.any(axis=0))
        lines = np.moveaxis(np.take(array, columns, view.columns), (view.rows, view.columns), (0, 1))
        lines = lines.reshape(*lines.shape[:2], -1).sum(axis=2, dtype=np.float64)
        factors = np.repeat(by_group[:, columns], len(lines) // view.groups, axis=0)
        return view.alpha * (lines * factors).sum(axis=1)  # type: ignore[no-any-return]

    def _weight(self) -> ir.TensorProtocol:
        weight = self.node.inputs[self.view.weight]
        assert weight is not None
        assert weight.const_value is not None
        return weight.const_value

    def _initializer(self, array: Array) -> ir.Value:
        name = self.names.fresh(f"{self.node.name}__bias")
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        self.structure.tensors[name] = (self._row_axis(),)
        return value

    def _row_axis(self) -> Axis:
        axes = self.structure.tensors[self.node.outputs[0].name or ""]
        assert axes is not None
        assert self.view.result is not None
        return axes[self.view.result]

    def _add_behind(self, change: Array) -> None:
        """Into the one Add of a constant that follows, or into a new one."""
        result = self.node.outputs[0]
        follower = self._following_bias(len(change))
        if follower is not None:
            assert follower.const_value is not None
            total = follower.const_value.numpy().astype(np.float64) + change
            follower.const_value = ir.tensor(total.astype(change.dtype), name=follower.name)
            return
        bias = self._initializer(change)
        old, inner = result.name or "", self.names.fresh(f"{result.name}__sum")
        total_value = ir.Value(name=old, shape=result.shape, type=result.type)
        result.replace_all_uses_with(total_value, replace_graph_outputs=True)
        result.name = inner
        self.structure.tensors[inner] = self.structure.tensors[old]
        add = ir.Node("", "Add", [result, bias], outputs=[total_value], name=self.names.fresh(f"{self.node.name}__add"))
        graph = self.node.graph
        assert graph is not None
        graph.insert_after(self.node, add)

    def _following_bias(self, size: int) -> ir.Value | None:
        result = self.node.outputs[0]
        uses = list(result.uses())
        if len(uses) != 1 or result.is_graph_output() or uses[0][0].op_type != "Add" or uses[0][0].domain != "":
            return None
        other = uses[0][0].inputs[1 - uses[0][1]]
        if other is None or not is_constant(other) or other.const_value is None or other.is_graph_output():
            return None
        alone = len(other.uses()) == 1 and other.const_value.dtype == result.dtype
        return other if alone and list(other.const_value.shape) == [size] else None


class ColumnSums:
    """Weights whose columns are to be summed: looked up before a cut, installed after it."""

    def __init__(
        self, model: ir.Model, structure: Structure, readings: Sequence[Reading], kept: Selection, targets: Targets
    ) -> None:
        self.structure, self.kept, self.targets = structure, kept, targets
        nodes = {node.name: node for node in all_nodes(model)}
        self.weights: dict[str, tuple[ir.Value, ir.TensorProtocol, Reading]] = {}
        for reading in readings:
            view = reading.contraction
            if view is None or reading.label is None:
                continue
            value = nodes[reading.call.node].inputs[view.weight]
            assert value is not None
            assert value.const_value is not None
            name = value.name or ""
            axes = structure.tensors[name]
            assert axes is not None
            if any(leaf in targets for leaf in structure.leaves(axes[view.columns])):
                self.weights[name] = (value, value.const_value, reading)

    def install(self, selection: Selection) -> None:
        """Give each weight, as ``selection`` leaves it, its summed columns."""
        for name, (value, tensor, reading) in self.weights.items():
            axes = self.structure.tensors[name]
            assert axes is not None
            assert reading.contraction is not None
            columns = reading.contraction.columns
            array = tensor.numpy()
            for dim, axis in enumerate(axes):
                if dim != columns and selection.cuts(axis):
                    array = np.take(array, np.flatnonzero(selection.mask(axis)), dim)
            axis = axes[columns]
            target = self._target(axis)
            factor = None if reading.level is None else reading.level / reading.level[target]
            numbers = np.cumsum(selection.mask(axis)) - 1
            array = sum_columns(array, columns, np.where(self.kept.mask(axis), numbers[target], -1), factor)
            value.const_value = ir.tensor(array, name=tensor.name)
            value.shape = ir.Shape(array.shape)

    def _target(self, axis: Axis) -> npt.NDArray[np.intp]:
        """For each column the one that it is added to: itself where it stays."""
        target = np.arange(int(axis.size))  # type: ignore[arg-type]
        for occurrence in occurrences(self.structure.space, axis):
            takes_over = self.targets.get(occurrence.leaf)
            if takes_over is not None:
                order = np.argsort(occurrence.position, kind="stable")
                lines = occurrence.index[order].reshape(len(takes_over), -1)
                step = np.arange(len(target))
                step[lines] = lines[takes_over]
                target = step[target]
        return target
