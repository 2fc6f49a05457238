"""Carries a selection out on an ONNX model: slices every initializer once and rewrites what spells a size.

Weights are sliced lazily: a sliced tensor is evaluated when it is written, so a model with external data never has to
fit into memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.onnx_walk import graphs
from graphprune.frontends.renumbering import renumbered
from graphprune.frontends.settlement import can_infer
from graphprune.frontends.sliced_tensor import SlicedTensor
from graphprune.rules.call import AttributeTarget, Axes, Call, IndexSite, InputTarget, LengthSite
from graphprune.selection import Selection
from graphprune.sizes import Size
from graphprune.structure import Structure

__all__ = ["slice_model"]


def slice_model(model: ir.Model, structure: Structure, selection: Selection) -> bool:
    """Remove from ``model``, in place, all positions that ``selection`` does not keep; tells whether any went.

    ``structure`` must have been read from this model.

    Raises:
        ModelError: a number in the graph cannot be made to spell the new size.
    """
    changed = False
    everything = list(graphs(model))
    for graph in everything:
        for name, value in graph.initializers.items():
            changed |= _slice_initializer(value, structure.tensors.get(name), selection)
    nodes = {node.name: node for graph in everything for node in graph}
    taken: set[str | None] = {value.name for node in nodes.values() for value in node.outputs}
    taken.update(name for graph in everything for name in graph.initializers)
    for call in structure.calls:
        if call.sites:
            changed |= _Sites(model, nodes[call.node], call, selection, taken).rewrite()
    for graph in everything:
        for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
            _reshape(value, structure.tensors.get(value.name or ""), selection)
    return changed


def _slice_initializer(value: ir.Value, axes: Axes | None, selection: Selection) -> bool:
    tensor = value.const_value
    if tensor is None or axes is None:
        return False
    kept = {dim: selection.positions(axis) for dim, axis in enumerate(axes) if selection.cuts(axis)}
    if not kept:
        return False
    sliced = SlicedTensor(tensor, kept)
    value.const_value, value.shape = sliced, sliced.shape
    return True


def _reshape(value: ir.Value, axes: Axes | None, selection: Selection) -> None:
    """State the new extents of an intermediate value; symbolic dimensions that are not cut stay as they are."""
    if axes is None or value.shape is None or len(value.shape) != len(axes):
        return
    dims: list[int | ir.SymbolicDim] = []
    changed = False
    for axis, dim in zip(axes, value.shape, strict=True):
        count = selection.count(axis)
        if not isinstance(count, int):
            cut = count is not axis.size and count != axis.size
            dims.append(ir.SymbolicDim(None if "?" in str(count) else str(count)) if cut else dim)
            changed |= cut
        else:
            dims.append(count)
            changed |= count != dim
    if changed:
        value.shape = ir.Shape(dims)


class _Sites:
    """The numbers in one node that spell sizes."""

    def __init__(
        self, model: ir.Model, node: ir.Node, call: Call, selection: Selection, taken: set[str | None]
    ) -> None:
        self.model, self.node, self.call, self.selection, self.taken = model, node, call, selection, taken

    def rewrite(self) -> bool:
        """Set all numbers to what they must be; tells whether any changed."""
        changed = False
        numbers: dict[int, dict[int, int]] = {}
        for site in self.call.sites:
            if isinstance(site, IndexSite):
                changed |= self._renumber(site)
                continue
            cut = any(map(self.selection.cuts, site.axes if site.whole is None else (site.whole,)))
            if site.whole is not None and not cut:
                continue
            wanted = self._wanted(site)
            if isinstance(site.target, AttributeTarget):
                changed |= self._attribute(site.target, wanted)
            elif (number := self._missing(site.target, wanted, cut)) is not None:
                numbers.setdefault(site.target.operand, {})[site.target.index] = number
        for operand, missing in numbers.items():
            self._operand(operand, missing)
        return changed or bool(numbers)

    def _wanted(self, site: LengthSite) -> Size:
        counts = [self.selection.count(axis) for axis in site.axes]
        if len(counts) == 1 and not site.offset:
            return counts[0]
        return site.offset + sum(count for count in counts if isinstance(count, int))

    def _attribute(self, target: AttributeTarget, wanted: Size) -> bool:
        attribute = self.node.attributes[target.name]
        if not isinstance(wanted, int):
            return False
        if target.index is None:
            if attribute.value == wanted:
                return False
            self.node.attributes[target.name] = ir.AttrInt64(target.name, wanted)
            return True
        values = list(attribute.value)
        if values[target.index] == wanted:
            return False
        values[target.index] = wanted
        self.node.attributes[target.name] = ir.AttrInt64s(target.name, values)
        return True

    def _missing(self, target: InputTarget, wanted: Size, cut: bool) -> int | None:
        """The number to write into an operand; None where it already has, or will come to have, the right value."""
        operand = self.call.operand(target.operand)
        assert operand is not None
        assert operand.elements is not None
        element = operand.elements[target.index]
        after = element.after(self.selection)
        if after == wanted or (after == element.value and not cut):
            return None
        if not isinstance(wanted, int):
            if can_infer(self.call.op, operand.elements):
                return -1
            raise ModelError(
                f"node '{self.node.name}': operand '{operand.name}' computes a size that does not follow the cut; "
                "exclude the layers that feed it"
            )
        return wanted

    def _renumber(self, site: IndexSite) -> bool:
        new = renumbered(site, self.selection, np.asarray(self.call.array(site.operand)))
        if new is not None:
            self._set_constant(site.operand, new)
        return new is not None

    # -- operands -------------------------------------------------------------------------------------------------

    def _operand(self, index: int, numbers: dict[int, int]) -> None:
        value = self.node.inputs[index]
        assert value is not None
        if value.const_value is not None:
            array = value.const_value.numpy().copy()
            flat = array.reshape(-1)
            for position, number in numbers.items():
                flat[position] = number
            self._set_constant(index, flat.reshape(array.shape))
            return
        operand = self.call.operand(index)
        assert operand is not None
        assert operand.elements is not None
        self._overwrite(index, value, len(operand.elements), numbers)

    def _set_constant(self, index: int, array: npt.NDArray[Any]) -> None:
        value = self.node.inputs[index]
        assert value is not None
        assert value.const_value is not None
        tensor = ir.Tensor(array, value.const_value.dtype, name=value.name)
        if len(value.uses()) == 1 and not value.is_graph_output():
            value.const_value = tensor
            value.shape = ir.Shape(array.shape)
            return
        self.node.replace_input_with(index, self._constant(f"{value.name}__{self.node.name}", array))

    def _constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        name = self._fresh(name)
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.initializers[name] = value
        return value

    def _fresh(self, name: str) -> str:
        """Take ``name``, or the first of its numbered forms that nothing is called: an earlier cut may have it."""
        candidate, count = name, 0
        while candidate in self.taken:
            count += 1
            candidate = f"{name}_{count}"
        self.taken.add(candidate)
        return candidate

    def _overwrite(self, index: int, value: ir.Value, length: int, numbers: dict[int, int]) -> None:
        """Replace some elements of a computed vector: Gather(Concat(computed, numbers), places), old opsets too."""
        places = np.arange(length)
        places[list(numbers)] = length + np.arange(len(numbers))
        literal = np.asarray(list(numbers.values()), dtype=np.int32 if value.dtype == ir.DataType.INT32 else np.int64)
        base = self._fresh(f"{self.node.name}__size{index}")
        both = [value, self._constant(f"{base}_numbers", literal)]
        joined = ir.node("Concat", both, {"axis": 0}, name=f"{base}_joined")
        chosen = [joined.outputs[0], self._constant(f"{base}_places", places)]
        gather = ir.node("Gather", chosen, {"axis": 0}, name=base)
        for node, size in ((joined, length + len(numbers)), (gather, length)):
            node.outputs[0].name, node.outputs[0].type = node.name, value.type
            node.outputs[0].shape = ir.Shape([size])
        graph = self.node.graph
        assert graph is not None
        graph.insert_before(self.node, [joined, gather])
        self.node.replace_input_with(index, gather.outputs[0])
