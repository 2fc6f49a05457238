"""Reads a canonical ONNX graph into a :class:`~graphprune.structure.Structure`: one pass over the nodes, no weights.

Every value gets axes from the rule of the operator that makes it; where there is no rule, or the rule cannot say, all
axes it touches are pinned with the reason. Bodies of If, Loop and Scan are read in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx_ir as ir

from graphprune import rules
from graphprune.axes import Pin
from graphprune.elements import Element, literal
from graphprune.frontends import onnx_bodies, shape_values
from graphprune.frontends.onnx_dims import sizes_of
from graphprune.frontends.onnx_walk import bodies
from graphprune.frontends.reading import Reading
from graphprune.frontends.settlement import settle
from graphprune.garbage import uncollected
from graphprune.rules.call import Call, Operand
from graphprune.structure import Parameter, Structure

__all__ = ["CLONE_OF", "Reader", "read", "read_with_sizes"]

CLONE_OF = "graphprune.clone_of"
"""Metadata key of an initializer that repeats the one named there, so that each use has axes of its own."""

# Tuples, not sets: members of an enumeration are found by identity faster than they are hashed.
_INDEX_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING)
_FOLLOWED = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
"""Types of the numbers that spell shapes, and of the conditions by which exporters choose between them."""
_FOLLOWED_RESULTS = (*_FOLLOWED, None)
_ROOM = {
    ir.DataType.INT64: 2**63 - 1,
    ir.DataType.INT32: 2**31 - 1,
    ir.DataType.INT16: 2**15 - 1,
    ir.DataType.INT8: 127,
    ir.DataType.UINT8: 255,
    ir.DataType.DOUBLE: 2**53,
    ir.DataType.FLOAT: 2**24,
    ir.DataType.BFLOAT16: 256,
    ir.DataType.FLOAT16: 2048,
}
_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def read(model: ir.Model) -> Structure:
    """The structure of a model that ``canonicalize`` has been over."""
    return read_with_sizes(model)[0]


def read_with_sizes(model: ir.Model) -> tuple[Structure, dict[str, tuple[Element, ...]]]:
    """The structure, and the contents of the values that spell sizes as far as they can be followed."""
    with uncollected():
        reader = Reader(model)
        reader.graph_inputs(model.graph.inputs)
        reader.graph(model.graph)
        for value in model.graph.outputs:
            reader.pin(value, "graph output", "the model's interface")
            reader.structure.outputs.append(value.name or "")
        settle(reader.structure)
    return reader.structure, reader.elements


class Reader(Reading):
    """The reading of one model; nodes are met in graph order, each once."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        self.model = model
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))

    # -- values ---------------------------------------------------------------------------------------------------

    def graph_inputs(self, values: Iterable[ir.Value]) -> None:
        """Inputs keep all positions: they are the model's interface."""
        for value in values:
            self._state(value, Pin(value.name or "", "graph input", "the model's interface"))
            self.structure.inputs.append(value.name or "")

    def _state(self, value: ir.Value, pin: Pin) -> None:
        sizes = sizes_of(value)
        axes = None if sizes is None else tuple(self.space.pinned(size, pin) for size in sizes)
        self.structure.tensors[value.name or ""] = axes
        self._note_type(value)

    def _note_type(self, value: ir.Value) -> None:
        if value.dtype is not None and value.dtype != ir.DataType.STRING:
            self.structure.itemsizes[value.name or ""] = value.dtype.itemsize

    def pin(self, value: ir.Value, op: str, reason: str) -> None:
        """Keep all positions of a value."""
        name = value.name or ""
        for axis in self.structure.tensors.get(name) or ():
            self.space.pin(axis, Pin(name, op, reason))
        self.pin_meaning(name)

    def initializer(self, value: ir.Value) -> None:
        """Give a weight axes of its own."""
        tensor = value.const_value
        name = value.name or ""
        if tensor is None:
            return
        shape, dtype = tensor.shape.numpy(), tensor.dtype
        axes = tuple([self.space.leaf(size) for size in shape])
        if 0 in shape or dtype == ir.DataType.STRING:
            for axis in axes:
                self.space.pin(axis, Pin(name, "initializer", "an empty tensor or text"))
        self.structure.tensors[name] = axes
        own = CLONE_OF not in value.metadata_props
        counts = own and dtype not in _INDEX_TYPES
        itemsize = dtype.itemsize if own and dtype != ir.DataType.STRING else 0
        size = math.prod(shape)
        self.structure.parameters[name] = Parameter(name, size, itemsize, counts)
        if dtype in _FOLLOWED and len(axes) <= 1 and size <= shape_values.MAX_ELEMENTS:
            self.elements[name] = tuple([literal(int(number)) for number in tensor.numpy().reshape(-1).tolist()])

    def operand(self, value: ir.Value | None) -> Operand | None:
        """A value as a rule sees it; None for an operand that is left out."""
        if value is None:
            return None
        name = value.name or ""
        axes, elements, tensor = self.structure.tensors.get(name), self.elements.get(name), value.const_value
        return (
            Operand(name, axes, False, elements, meaning=self.meanings.get(name))
            if tensor is None
            else Operand(name, axes, True, elements, tensor.numpy)
        )

    # -- nodes ----------------------------------------------------------------------------------------------------

    def graph(self, graph: ir.Graph) -> None:
        """Read initializers and nodes of a graph or body."""
        for value in graph.initializers.values():
            self.initializer(value)
        for node in graph:
            self.node(node)

    def node(self, node: ir.Node) -> None:
        """Read one node: apply its rule, or pin what it touches."""
        call = self.call(node)
        read_body = onnx_bodies.READERS.get(call.op)
        if read_body is not None:
            results = self.relate(
                call,
                None,
                lambda: read_body(self, node, call),
                lambda: onnx_bodies.pin_bodies(self, node, call),
            )
            for body in bodies(node):
                for value in body.outputs:
                    self.pin_meaning(value.name or "", call.why("a result of a body"))
        else:
            if len(call.attributes) < len(node.attributes.data):
                onnx_bodies.pin_bodies(self, node, call)
            results = self.relate(call, rules.find(call.op))
        for name, axes, stated in zip(call.results, results, call.result_sizes, strict=False):
            self.structure.tensors[name] = self.refined(call, axes, stated)
        for value in node.outputs:
            self._note_type(value)
        self._follow(node, call)

    def _follow(self, node: ir.Node, call: Call) -> None:
        """Contents of the result where they are numbers that spell shapes; an attention's scale, for instance, is
        computed from sizes in a way that is not followed."""
        found = None
        if call.op in shape_values.FOLLOWED and len(node.outputs) == 1 and node.outputs[0].dtype in _FOLLOWED_RESULTS:
            found = shape_values.results(call)
        if found is not None:
            self.elements[call.results[0]] = found
        else:
            self.pin_computed(call)

    def call(self, node: ir.Node) -> Call:
        """A node as a rule sees it."""
        domain, outputs, given = node.domain, node.outputs, node.attributes.data
        attributes = {name: attribute.value for name, attribute in given.items() if attribute.type not in _BODIES}
        return Call(
            self.space,
            node.name or "",
            f"{'onnx' if domain in ('', 'ai.onnx') else domain}.{node.op_type}",
            [self.operand(value) for value in node.inputs],
            attributes,
            [sizes_of(value) for value in outputs],
            self.opset,
            tuple([value.name or "" for value in outputs]),
            onnx_bodies.border(node) if len(attributes) < len(given) else (),
            room=tuple([_room(value) for value in outputs]) if self.meanings else (),
        )


def _room(value: ir.Value) -> int:
    """Up to which whole number a value can hold all of them, 0 where that is not known."""
    return 0 if value.dtype is None else _ROOM.get(value.dtype, 0)
