"""Reads a canonical ONNX graph into a :class:`~graphprune.structure.Structure`: one pass over the nodes, no weights.

Every value gets axes from the rule of the operator that makes it; where there is no rule, or the rule cannot say, all
axes it touches are pinned with the reason. Bodies of If, Loop and Scan are read in place.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune import rules
from graphprune.axes import Pin
from graphprune.elements import Element, literal
from graphprune.frontends import onnx_bodies, shape_values
from graphprune.frontends.reading import Reading
from graphprune.frontends.settlement import settle
from graphprune.garbage import uncollected
from graphprune.rules.call import Axes, Call, Operand
from graphprune.sizes import Size, fresh, named
from graphprune.structure import Parameter, Structure

__all__ = ["CLONE_OF", "Reader", "read", "read_with_sizes"]

CLONE_OF = "graphprune.clone_of"
"""Metadata key of an initializer that repeats the one named there, so that each use has axes of its own."""

_INDEX_TYPES = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING})
_FOLLOWED = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
"""Types of the numbers that spell shapes, and of the conditions by which exporters choose between them."""


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
        settle(reader.structure)
    return reader.structure, reader.elements


def sizes_of(value: ir.Value) -> tuple[Size, ...] | None:
    """Sizes of a value's dimensions as the graph states them; a dimension nobody named is a fresh symbol."""
    if value.shape is None:
        return None
    return tuple(_size(dim) for dim in value.shape.dims)


def _size(dim: int | ir.SymbolicDim) -> Size:
    if isinstance(dim, int):
        return dim if dim >= 0 else fresh()
    return named(str(dim.value)) if dim.value else fresh()


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

    def _state(self, value: ir.Value, pin: Pin) -> None:
        sizes = sizes_of(value)
        axes = None if sizes is None else tuple(self.space.pinned(size, pin) for size in sizes)
        self.structure.tensors[value.name or ""] = axes

    def pin(self, value: ir.Value, op: str, reason: str) -> None:
        """Keep all positions of a value."""
        for axis in self.structure.tensors.get(value.name or "") or ():
            self.space.pin(axis, Pin(value.name or "", op, reason))

    def initializer(self, value: ir.Value) -> None:
        """Give a weight axes of its own."""
        tensor = value.const_value
        name = value.name or ""
        if tensor is None:
            return
        axes = tuple(self.space.leaf(int(size)) for size in tensor.shape)  # type: ignore[arg-type]
        if 0 in tensor.shape or tensor.dtype == ir.DataType.STRING:
            for axis in axes:
                self.space.pin(axis, Pin(name, "initializer", "an empty tensor or text"))
        self.structure.tensors[name] = axes
        own = CLONE_OF not in value.metadata_props
        counts = own and tensor.dtype not in _INDEX_TYPES
        itemsize = tensor.dtype.itemsize if own and tensor.dtype != ir.DataType.STRING else 0
        self.structure.parameters[name] = Parameter(name, int(tensor.size), itemsize, counts)
        if tensor.dtype in _FOLLOWED and len(axes) <= 1 and tensor.size <= shape_values.MAX_ELEMENTS:
            self.elements[name] = tuple(literal(int(number)) for number in tensor.numpy().reshape(-1))

    def operand(self, value: ir.Value | None) -> Operand | None:
        """A value as a rule sees it; None for an operand that is left out."""
        if value is None:
            return None
        name = value.name or ""
        tensor = value.const_value

        def contents() -> npt.NDArray[np.generic] | None:
            return None if tensor is None else tensor.numpy()

        return Operand(name, self.structure.tensors.get(name), tensor is not None, self.elements.get(name), contents)

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
        if read_body is None:
            onnx_bodies.pin_bodies(self, node, call)
            results = self.relate(call, rules.find(call.op))
        else:
            results = self.relate(
                call,
                None,
                lambda: read_body(self, node, call),
                lambda: onnx_bodies.pin_bodies(self, node, call),
            )
        for value, axes in zip(node.outputs, results, strict=False):
            self.structure.tensors[value.name or ""] = self.stated(call, value, axes)
        self._follow(node, call)

    def stated(self, call: Call, value: ir.Value, axes: Axes | None) -> Axes | None:
        """Axes of a value, with what the graph states about its symbolic dimensions put in."""
        return self.refined(call, axes, lambda: sizes_of(value))

    def _follow(self, node: ir.Node, call: Call) -> None:
        """Contents of the result where they are numbers that spell shapes; an attention's scale, for instance, is
        computed from sizes in a way that is not followed."""
        found = None
        if len(node.outputs) == 1 and node.outputs[0].dtype in (*_FOLLOWED, None):
            found = shape_values.results(call)
        if found is not None:
            self.elements[node.outputs[0].name or ""] = found
        else:
            self.pin_computed(call)

    def call(self, node: ir.Node) -> Call:
        """A node as a rule sees it."""
        domain = "onnx" if node.domain in ("", "ai.onnx") else node.domain
        attributes = {
            name: attribute.value
            for name, attribute in node.attributes.items()
            if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        }
        return Call(
            self.space,
            node.name or "",
            f"{domain}.{node.op_type}",
            [self.operand(value) for value in node.inputs],
            attributes,
            [sizes_of(value) for value in node.outputs],
            self.opset,
            tuple(value.name or "" for value in node.outputs),
            onnx_bodies.border(node),
        )
