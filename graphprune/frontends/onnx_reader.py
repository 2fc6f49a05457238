"""Reads a canonical ONNX graph into a :class:`~graphprune.structure.Structure`: one pass over the nodes, no weights.

Every value gets axes from the rule of the operator that makes it; where there is no rule, or the rule cannot say, all
axes it touches are pinned with the reason. Bodies of If, Loop and Scan are read in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from graphprune import rules
from graphprune.axes import Axis, AxisSpace, Pin
from graphprune.elements import Element, literal
from graphprune.frontends import onnx_bodies, shape_values
from graphprune.frontends.onnx_dims import sizes_of
from graphprune.frontends.settlement import settle
from graphprune.garbage import uncollected
from graphprune.rules.call import Axes, Call, Declined, Operand
from graphprune.sizes import Size, Symbolic, is_fresh
from graphprune.structure import Parameter, Structure

__all__ = ["CLONE_OF", "Reader", "read", "read_with_sizes"]

CLONE_OF = "graphprune.clone_of"
"""Metadata key of an initializer that repeats the one named there, so that each use has axes of its own."""

# Tuples, not sets: members of an enumeration are found by identity faster than they are hashed.
_INDEX_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING)
_FOLLOWED = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
"""Types of the numbers that spell shapes, and of the conditions by which exporters choose between them."""
_FOLLOWED_RESULTS = (*_FOLLOWED, None)
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
        settle(reader.structure)
    return reader.structure, reader.elements


def _contradict(axes: Axes, stated: Sequence[Size]) -> bool:
    for axis, known in zip(axes, stated, strict=True):
        size = axis.size
        if size is not known and isinstance(size, int) and isinstance(known, int) and size != known:
            return True
    return False


class Reader:
    """The reading of one model; nodes are met in graph order, each once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.space = AxisSpace()
        self.structure = Structure(self.space)
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.elements: dict[str, tuple[Element, ...]] = {}

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
            Operand(name, axes, False, elements)
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
        binding = rules.find(call.op)
        try:
            if read_body is None and len(call.attributes) < len(node.attributes.data):
                onnx_bodies.pin_bodies(self, node, call)
            if read_body is not None:
                results = read_body(self, node, call)
            elif binding is None:
                self.structure.undeclared[call.op] += 1
                raise Declined("an operator that nobody declared")
            else:
                results = list(binding.rule(call))
                self._pin_unrelated(call)
            self._check(call, results)
        except (Declined, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Ranks, shapes and attributes that the graph states wrongly make rules index and pair what is not there.
            reason = str(error) if isinstance(error, Declined) else "its operands do not fit its rule"
            if read_body is not None:
                onnx_bodies.pin_bodies(self, node, call)
            results = self._pin_all(call, reason)
        self.structure.calls.append(call)
        for name, axes, stated in zip(call.results, results, call.result_sizes, strict=False):
            self.structure.tensors[name] = self._refined(call, axes, stated)
        self._follow(node, call)

    def _follow(self, node: ir.Node, call: Call) -> None:
        """Contents of the result where they are numbers that spell shapes; where sizes enter other computations, an
        attention's scale for instance, the axes they are read off keep their extent."""
        found = None
        if call.op in shape_values.FOLLOWED and len(node.outputs) == 1 and node.outputs[0].dtype in _FOLLOWED_RESULTS:
            found = shape_values.results(call)
        if found is not None:
            self.elements[call.results[0]] = found
            return
        for index, operand in enumerate(call.operands):
            if operand is not None and operand.elements is not None and index not in call.spelled:
                for element in operand.elements:
                    call.pin(element.depends, "its extent enters a computation")

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
        )

    def _pin_unrelated(self, call: Call) -> None:
        if len(call.related) == len(call.operands):
            return
        for index, operand in enumerate(call.operands):
            if operand is not None and index not in call.related:
                call.pin(operand.axes or (), "read by this operator as a whole")

    def _check(self, call: Call, results: list[Axes | None]) -> None:
        """A rule whose result contradicts the shapes that the graph states is not believed."""
        for stated, axes in zip(call.result_sizes, results, strict=False):
            if stated is None or axes is None:
                continue
            if len(axes) != len(stated) or _contradict(axes, stated):
                shown = "x".join(map(str, stated)), "x".join(str(axis.size) for axis in axes)
                raise Declined(f"its result is {shown[0]} where its rule says {shown[1]}")

    def _pin_all(self, call: Call, reason: str) -> list[Axes | None]:
        call.sites.clear()
        call.mixes.clear()
        call.contractions.clear()
        for operand in call.operands:
            if operand is not None:
                call.pin(operand.axes or (), reason)
        return call.unknown_results(reason)

    def _refined(self, call: Call, axes: Axes | None, stated: Sequence[Size] | None) -> Axes | None:
        """Axes of a result, with what the graph states about symbolic dimensions put in."""
        if stated is None:
            return axes
        if axes is None:
            return tuple(call.fixed(size, "an unknown axis") for size in stated)
        for axis in axes:
            if not isinstance(axis.size, int):
                break
        else:
            return axes
        return tuple([self._better(call, axis, size) for axis, size in zip(axes, stated, strict=True)])

    def _better(self, call: Call, axis: Axis, stated: Size) -> Axis:
        size = axis.size
        if size is stated or isinstance(size, int) or size == stated:
            return axis
        if isinstance(stated, Symbolic) and (is_fresh(stated) or not is_fresh(size)):
            return axis
        call.pin(axis, "an axis of symbolic size")
        return call.fixed(stated, "an axis of symbolic size")
