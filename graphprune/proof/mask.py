"""The masked original: the uncut graph, made blind to the positions that a selection removes.

A *sum* over a cut axis reads ``Where(kept, x, 0)``, so what was there, even infinity, adds nothing. An operator that
takes *statistics* over a cut axis reads ``Gather(kept)`` of its operands, and its results are spread out again to full
size (a removed position gets a copy of some kept one, which nobody may look at); positions among its results, of what
was kept, are looked up in ``kept`` and so count all again. Every other operator is left as it is.
None of this is shared with the writer that slices, which is what makes agreement of the two a proof.

In integer arithmetic with a zero point the number that stands for zero is the zero point. ``Where`` exists since opset
9; before, an operand is gathered, padded with one zero, and gathered back. Where a last dimension is a known part
times a symbolic rest (channels of a group times space), the known part gets a dimension of its own for the while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.proof.mixing import Hidden, Spot, hidden, repeating
from graphprune.rules.call import AttributeTarget, Call
from graphprune.selection import Mask, Selection
from graphprune.structure import Structure

__all__ = ["masked_original"]

WHERE_SINCE = 9


def masked_original(model: ir.Model, structure: Structure, selection: Selection) -> ir.Model:
    """A copy of ``model`` whose results do not depend on what ``selection`` removes; weights are shared with it.

    Raises:
        ValueError: a cut axis has a symbolic factor in a place where no constant mask fits it.
    """
    masked = model.clone()
    masked.opset_imports.setdefault("", WHERE_SINCE)
    calls = {call.node: call for call in structure.calls if any(selection.cuts(mix.axis) for mix in call.mixes)}
    masker = _Masker(masked)
    for graph in list(masked.graphs()):
        for node in list(graph):
            if (call := calls.get(node.name or "")) is None:
                continue
            results = [value.name or "" for value in node.outputs]
            found = hidden(structure, call, selection, results)
            assert found is not None
            ranks = [len(structure.tensors.get(name) or ()) for name in results]
            masker.mask(node, call, found, ranks)
    return masked


class _Masker:
    """Inserts masks into one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.opset_imports.get("", 1)
        self.names = {value.name for graph in model.graphs() for value in _values(graph)}
        self.constants: dict[tuple[Any, ...], ir.Value] = {}
        self.node: ir.Node
        self.split_operands: set[Spot] = set()
        self.split_results: set[Spot] = set()

    def mask(self, node: ir.Node, call: Call, found: Hidden, ranks: Sequence[int]) -> None:
        """Hide the removed positions from one node, whose results have these ranks."""
        self.node = node
        self.split_operands = {spot for side, spot in found.outer if side == "operand"}
        self.split_results = {spot for side, spot in found.outer if side == "result"}
        for (side, (number, dim)), outer in found.outer.items():
            rank = len(call.axes(number)) if side == "operand" else ranks[number]
            if not outer or dim != rank - 1:
                raise ValueError("positions are mixed along an axis of symbolic size")
        for (number, dim), kept in found.zeroed.items():
            self._open(number, dim, len(kept))
            rank = len(call.axes(number)) + ((number, dim) in self.split_operands)
            self._zero(number, dim, kept, rank, found.neutral[number])
            self._close(number, dim)
        for (number, dim), kept in found.gathered.items():
            self._open(number, dim, len(kept))
            self._replace_input(number, self._gather(self._input(number), np.flatnonzero(kept), dim))
            self._close(number, dim)
        for (number, dim), kept in found.spread.items():
            self._spread(number, dim, kept)
        for number, kept in found.positions.items():
            self._renumber(number, kept)
        for target, length in found.lengths.items():
            if isinstance(target, AttributeTarget):
                self._respell(target, length)

    # -- the edits ------------------------------------------------------------------------------------------------

    def _open(self, number: int, dim: int, size: int) -> None:
        """Give the known part of a last dimension of symbolic size a dimension of its own."""
        if (number, dim) in self.split_operands:
            self._replace_input(number, self._reshape(self._input(number), [0] * dim + [size, -1]))

    def _close(self, number: int, dim: int) -> None:
        if (number, dim) in self.split_operands:
            self._replace_input(number, self._reshape(self._input(number), [0] * dim + [-1]))

    def _reshape(self, x: ir.Value, target: list[int]) -> ir.Value:
        return self._insert("Reshape", [x, self._constant(np.asarray(target, dtype=np.int64))], {}, x)

    def _zero(self, number: int, dim: int, kept: Mask, rank: int, zero_point: int | None) -> None:
        x = self._input(number)
        if self.opset < WHERE_SINCE:
            shrunk = self._gather(x, np.flatnonzero(kept), dim)
            pads = [0] * (2 * rank)
            pads[rank + dim] = 1
            padded = self._insert("Pad", [shrunk], {"pads": pads}, x)
            back = np.where(kept, np.cumsum(kept) - 1, np.count_nonzero(kept))
            self._replace_input(number, self._gather(padded, back, dim))
            return
        mask = self._constant(kept.reshape([-1] + [1] * (rank - 1 - dim)))
        if x.dtype == ir.DataType.BOOL:
            self._replace_input(number, self._insert("And", [mask, x], {}, x))
            return
        zero = self._zero_point(zero_point)
        if zero is None:
            dtype = x.dtype or ir.DataType.FLOAT
            zero = self._constant(np.zeros((), dtype.numpy()))
        self._replace_input(number, self._insert("Where", [mask, x, zero], {}, x))

    def _zero_point(self, number: int | None) -> ir.Value | None:
        if number is None or number >= len(self.node.inputs):
            return None
        return self.node.inputs[number]

    def _spread(self, number: int, dim: int, kept: Mask) -> None:
        """Give a result its full size again; removed positions repeat the kept one before (or the first)."""
        result = self.node.outputs[number]
        name = result.name
        if not name:
            return
        raw = self._name(f"{name}/kept")
        index = self._constant(repeating(kept))
        graph = self.node.graph
        assert graph is not None
        full = ir.Value(name=self._name(f"{name}/full"), type=result.type)
        result.replace_all_uses_with(full, replace_graph_outputs=True)
        result.name, result.shape = raw, None
        full.name = name
        if (number, dim) not in self.split_results:
            gather = ir.Node("", "Gather", [result, index], [ir.AttrInt64("axis", dim)], outputs=[full])
            gather.name = self._name(f"{name}/spread")
            graph.insert_after(self.node, gather)
            return
        own, whole = (
            self._constant(np.asarray([0] * dim + target, dtype=np.int64))
            for target in ([int(np.count_nonzero(kept)), -1], [-1])
        )
        apart = ir.Node("", "Reshape", [result, own], name=self._name(f"{name}/apart"))
        gather = ir.Node("", "Gather", [apart.outputs[0], index], [ir.AttrInt64("axis", dim)])
        gather.name = self._name(f"{name}/spread")
        for value, suffix in ((apart.outputs[0], "apart"), (gather.outputs[0], "spread")):
            value.name, value.type = self._name(f"{name}/{suffix}"), result.type
        joined = ir.Node("", "Reshape", [gather.outputs[0], whole], outputs=[full], name=self._name(f"{name}/joined"))
        graph.insert_after(self.node, (apart, gather, joined))

    def _renumber(self, number: int, kept: Mask) -> None:
        """Let a result that counts the kept positions count all of them."""
        result = self.node.outputs[number]
        name = result.name
        if not name:
            return
        graph = self.node.graph
        assert graph is not None
        full = ir.Value(name=self._name(f"{name}/all"), type=result.type, shape=result.shape)
        result.replace_all_uses_with(full, replace_graph_outputs=True)
        result.name, full.name = self._name(f"{name}/kept"), name
        index = self._constant(np.flatnonzero(kept).astype(np.int64))
        gather = ir.Node("", "Gather", [index, result], [ir.AttrInt64("axis", 0)], outputs=[full])
        gather.name = self._name(f"{name}/renumber")
        graph.insert_after(self.node, gather)

    def _respell(self, target: AttributeTarget, length: int) -> None:
        """An attribute that spells the size of a gathered axis follows it."""
        attribute = self.node.attributes.get(target.name)
        if attribute is None:
            return
        if target.index is None:
            self.node.attributes[attribute.name] = ir.AttrInt64(attribute.name, length)
        else:
            numbers = list(attribute.as_ints())
            numbers[target.index] = length
            self.node.attributes[attribute.name] = ir.AttrInt64s(attribute.name, numbers)

    # -- plumbing -------------------------------------------------------------------------------------------------

    def _input(self, number: int) -> ir.Value:
        value = self.node.inputs[number]
        assert value is not None
        return value

    def _replace_input(self, number: int, value: ir.Value) -> None:
        self.node.replace_input_with(number, value)

    def _gather(self, x: ir.Value, index: npt.NDArray[np.intp], dim: int) -> ir.Value:
        return self._insert("Gather", [x, self._constant(index.astype(np.int64))], {"axis": dim}, x)

    def _insert(self, op: str, inputs: list[ir.Value], attributes: dict[str, Any], like: ir.Value) -> ir.Value:
        result = ir.Value(name=self._name(f"{like.name}/{op.lower()}"), type=like.type)
        convert = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", op, inputs, convert, outputs=[result], name=self._name(f"{result.name}/node"))
        graph = self.node.graph
        assert graph is not None
        graph.insert_before(self.node, node)
        return result

    def _constant(self, array: npt.NDArray[Any]) -> ir.Value:
        """An initializer of the main graph, which every body can see."""
        key = (array.dtype.str, array.dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape))
            value = ir.Value(name=self._name("mask"), const_value=tensor, type=ir.TensorType(tensor.dtype))
            value.shape = ir.Shape(array.shape)
            self.model.graph.register_initializer(value)
            self.constants[key] = value
        return self.constants[key]

    def _name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
