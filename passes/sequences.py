"""Replace sequences of tensors by the tensors, wherever it is known which they are.

Scripted loops over parts and ``torch.split`` become SplitToSequence, SequenceConstruct and SequenceAt. Nothing is known
about a tensor that comes out of a sequence, so what passes through one could not be cut.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_attributes import integer
from graphprune.frontends.onnx_walk import nodes
from graphprune.passes.tensors import Names, constant, read_small

__all__ = ["resolve_sequences"]


def resolve_sequences(model: ir.Model) -> int:
    """Rewrite reads of known sequences; returns how many. What made the sequences is left dead."""
    reads = [node for node in nodes(model) if node.op_type in ("SequenceAt", "ConcatFromSequence") and not node.domain]
    if not reads:
        return 0
    sequences = _Sequences(model)
    return sum(sequences.resolve(node) for node in reads)


class _Sequences:
    """The sequences of a model, resolved as they are asked for."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = Names(model)
        self.opset = model.opset_imports.get("", 1)
        self.split: dict[ir.Node, list[ir.Value] | None] = {}

    def resolve(self, node: ir.Node) -> bool:
        """Let readers of ``node`` read the tensors of its sequence; False where they are not known."""
        items = self.items(node.inputs[0])
        result = node.outputs[0]
        if not items or not result.uses() or result.is_graph_output():
            return False
        if node.op_type == "SequenceAt":
            at = _position(node.inputs[1])
            if at is None or not -len(items) <= at < len(items):
                return False
            result.replace_all_uses_with(items[at])
            return True
        if integer(node, "new_axis", 0):
            return False
        concat = ir.node(
            "Concat", items, {"axis": integer(node, "axis", 0)}, name=self.names.fresh(f"{node.name}_flat")
        )
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], [concat], [result], concat.outputs)
        return True

    def items(self, sequence: ir.Value | None) -> list[ir.Value] | None:
        """The tensors of ``sequence`` in order, None where they are not known."""
        inserted: list[tuple[ir.Value, ir.Value | None]] = []
        node = sequence.producer() if sequence is not None else None
        while node is not None and node.op_type == "SequenceInsert" and not node.domain:
            source, tensor, *rest = node.inputs
            if source is None or tensor is None:
                return None
            inserted.append((tensor, rest[0] if rest else None))
            node = source.producer()
        items = self._made(node) if node is not None and not node.domain else None
        if items is None:
            return None
        for tensor, place in reversed(inserted):
            at = len(items) if place is None else _position(place)
            if at is None:
                return None
            items.insert(at, tensor)
        return items

    def _made(self, node: ir.Node) -> list[ir.Value] | None:
        if node.op_type == "SequenceEmpty":
            return []
        if node.op_type == "SequenceConstruct":
            return [value for value in node.inputs if value is not None]
        if node.op_type != "SplitToSequence":
            return None
        if node not in self.split:
            self.split[node] = self._parts(node)
        parts = self.split[node]
        return None if parts is None else list(parts)

    def _parts(self, node: ir.Node) -> list[ir.Value] | None:
        source = node.inputs[0]
        lengths = read_small(node.inputs[1]) if len(node.inputs) > 1 else None
        if source is None or source.shape is None or lengths is None:
            return None
        axis = integer(node, "axis", 0) % len(source.shape)
        whole = source.shape[axis]
        if not isinstance(whole, int):
            return None
        sizes = [int(length) for length in lengths.reshape(-1)]
        if lengths.ndim == 0:
            sizes = [min(sizes[0], whole - start) for start in range(0, whole, max(sizes[0], 1))]
        name = self.names.fresh(f"{node.name}_parts")
        inputs: list[ir.Value | None] = [source]
        attributes: dict[str, int | list[int]] = {"axis": axis}
        if self.opset < 13:
            attributes["split"] = sizes
        else:
            inputs.append(constant(self.model, self.names.fresh(f"{name}_sizes"), np.asarray(sizes, dtype=np.int64)))
        split = ir.node("Split", inputs, attributes, num_outputs=len(sizes), name=name)
        for index, (value, size) in enumerate(zip(split.outputs, sizes, strict=True)):
            value.name = self.names.fresh(f"{name}_{index}")
            value.type = source.type
            value.shape = ir.Shape([size if dim == axis else old for dim, old in enumerate(source.shape)])
        assert node.graph is not None
        node.graph.insert_before(node, split)
        return list(split.outputs)


def _position(value: ir.Value | None) -> int | None:
    """A constant place in a sequence, None where it is not known."""
    place = read_small(value)
    return None if place is None or place.size != 1 else int(place.reshape(()))
