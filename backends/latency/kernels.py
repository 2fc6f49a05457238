"""The operators of an ONNX program whose time is looked up in tables, and what of their shapes a cut changes.

A *kernel* is an operator together with those that a runtime computes in the same sweep: activations, normalisations in
inference and additions of constants that alone read its result. Operators that move no data (reshapes) take no time,
and neither, next to all others, do those with a very small part in the work.

The shapes of a kernel follow from the extents of its *slots* (:class:`graphprune.cost.CostModel`): for a convolution
the channels that go in and those that come out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.cost import CostModel, Term
from graphprune.rules.call import AttributeTarget, Call, IndexSite, InputTarget, LengthSite
from graphprune.structure import Structure

__all__ = ["Edit", "Kernel", "Operand", "kernels_of", "outside"]

FREE = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant", "Dropout", "Cast"}
)
"""Operators that move no numbers, or none but sizes."""
FOLLOWERS = frozenset(
    {"Add", "Mul", "Sub", "Div", "BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh"}
    | {"HardSigmoid", "HardSwish", "Elu", "Gelu", "Erf", "Softplus"}
)
"""What a runtime fuses with the operator before it, where all other operands are stored."""
DOMAINS = ("", "com.microsoft")
"""Whose operators are told apart here."""
CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedMatMul", "FusedConv"})
SMALLEST = 2e-4
"""The part in the work of all kernels below which one is left out."""
MOVED = 8
"""Multiply-accumulates that take as long as moving one element."""
CONTENTS = 64
"""Elements up to which a stored operand is taken as it is: exponents, bounds, sizes."""


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand: its name, element type and dimensions, and its tensor where it is stored."""

    name: str
    dtype: ir.DataType
    dims: tuple[Term, ...]
    stored: ir.TensorProtocol | None


@dataclass(frozen=True, slots=True)
class Edit:
    """A number of node ``node`` (its place in the kernel) that spells a size: ``offset`` plus ``value``."""

    node: int
    target: AttributeTarget | InputTarget
    value: Term
    offset: int


@dataclass(frozen=True)
class Kernel:
    """Operators that run as one; ``operands`` are what they read beside each other's results, without repeats.

    ``result`` has the dimensions of what comes out, ``edits`` are attributes and stored sizes that follow a cut, and
    ``slots`` the extents that all shapes follow from, ``full`` what these are in the whole program.
    """

    nodes: tuple[ir.Node, ...]
    operands: tuple[Operand, ...]
    edits: tuple[Edit, ...]
    result: tuple[Term, ...]
    macs: tuple[Term, ...]
    slots: tuple[int, ...]
    full: tuple[int, ...]

    @property
    def op(self) -> str:
        """The operator that decides."""
        return self.nodes[0].op_type

    @property
    def kind(self) -> str:
        """What it is: of convolutions whether each channel has a filter of its own, or the filter is a single point."""
        if self.op not in ("Conv", "FusedConv"):
            return self.op
        weight = self.operands[1].dims if len(self.operands) > 1 else ()
        groups = self.nodes[0].attributes.get("group")
        if groups is not None and groups.as_int() > 1:
            return "depthwise Conv" if weight and weight[1] == Term(1, ()) else "grouped Conv"
        return "1x1 Conv" if all(dim == Term(1, ()) for dim in weight[2:]) else "Conv"

    def role(self, slot: int) -> str:
        """``in`` where a slot is read and gone after, ``out`` where it comes from weights alone, else ``through``."""
        read = any(slot in dim.slots for dim in self.operands[0].dims)
        made = any(slot in dim.slots for dim in self.result)
        return "through" if read and made else "in" if read else "out"

    def work(self, extents: Mapping[int, int] | Sequence[int]) -> float:
        """Its work in multiply-accumulates, moving elements included."""
        moved = sum(value(dims, extents) for dims in (self.result, *(each.dims for each in self.operands)))
        return sum(value((term,), extents) for term in self.macs) + MOVED * moved


def value(dims: Sequence[Term], extents: Mapping[int, int] | Sequence[int]) -> int:
    """The product of dimensions."""
    return math.prod(dim.coefficient * math.prod(extents[slot] for slot in dim.slots) for dim in dims)


def kernels_of(model: ir.Model, structure: Structure, cost: CostModel) -> list[Kernel]:
    """The kernels of a canonical model in reading order, without those that hardly matter."""
    found = list(_Kernels(model, structure, cost).all())
    extents = cost.extents({})
    works = [kernel.work(extents) for kernel in found]
    least = SMALLEST * sum(works)
    return [kernel for kernel, work in zip(found, works, strict=True) if work >= least]


def outside(model: ir.Model, structure: Structure, cost: CostModel) -> list[ir.Node]:
    """The nodes that multiply, or of which little is known, and that no kernel holds: no table tells their time."""
    inside = {id(node) for kernel in _Kernels(model, structure, cost).all() for node in kernel.nodes}
    known = {call.results[0]: bool(call.contractions) for call in structure.calls if call.results}
    return [
        node
        for node in model.graph
        if id(node) not in inside
        and node.op_type not in FREE
        and node.outputs
        and (node.domain not in DOMAINS or known.get(node.outputs[0].name or "", True))
    ]


class _Kernels:
    def __init__(self, model: ir.Model, structure: Structure, cost: CostModel) -> None:
        self.structure, self.cost = structure, cost
        self.made = {node.outputs[0].name: node for node in model.graph if node.outputs}
        self.calls = {call.results[0]: call for call in structure.calls if call.results}
        self.given = {value.name for value in model.graph.outputs}
        self.readers: Counter[str | None] = Counter(
            value.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for value in node.inputs if value
        )

    def all(self) -> Iterator[Kernel]:
        """Every operator in one kernel, where its shapes are understood."""
        taken: set[str | None] = set()
        for name, node in self.made.items():
            if name in taken or node.op_type in FREE or node.domain not in DOMAINS:
                continue
            nodes = self._with_followers(node)
            taken.update(each.outputs[0].name for each in nodes)
            kernel = self._kernel(nodes)
            if kernel is not None:
                yield kernel

    def _with_followers(self, node: ir.Node) -> list[ir.Node]:
        nodes = [node]
        while True:
            last = nodes[-1].outputs[0]
            uses = list(last.uses())
            if len(nodes[-1].outputs) > 1 or self.readers[last.name] != 1 or last.name in self.given or not uses:
                return nodes
            follower = uses[0].node
            others = [value for value in follower.inputs if value is not None and value is not last]
            stored = all(value.const_value is not None for value in others)
            if follower.op_type not in FOLLOWERS or not stored or follower.outputs[0].name not in self.made:
                return nodes
            nodes.append(follower)

    def _kernel(self, nodes: Sequence[ir.Node]) -> Kernel | None:
        """The kernel of some nodes; None where a shape is unknown, or a cut changes more than sizes."""
        inner = {node.outputs[0].name for node in nodes[:-1]}
        operands: dict[str, Operand] = {}
        edits: list[Edit] = []
        macs: list[Term] = []
        for number, node in enumerate(nodes):
            call = self.calls.get(node.outputs[0].name or "")
            if call is None or any(attribute.type in _BODIES for attribute in node.attributes.values()):
                return None
            for given in node.inputs:
                if given is None or given.name in inner:
                    continue
                operand = self._operand(given)
                if operand is None:
                    return None
                operands[operand.name] = operand
            found = self._edits(number, call)
            if found is None:
                return None
            edits += found
            macs += [self.cost.term(axes) for axes in call.contractions]
        axes = self.structure.tensors.get(nodes[-1].outputs[0].name or "")
        read = tuple(operands.values())
        if axes is None or not read or nodes[0].outputs[0].dtype not in _FLOATS:
            return None
        result = self._dims(axes)
        slots = tuple(dict.fromkeys(slot for operand in read for dim in operand.dims for slot in dim.slots))
        extents = self.cost.extents({})
        full = tuple(extents[slot] for slot in slots)
        if any(slot not in slots for dim in (*result, *(edit.value for edit in edits)) for slot in dim.slots):
            extra = {slot for dim in (*result, *(edit.value for edit in edits)) for slot in dim.slots} - set(slots)
            slots, full = (*slots, *sorted(extra)), (*full, *(extents[slot] for slot in sorted(extra)))
        return Kernel(tuple(nodes), read, tuple(edits), result, tuple(macs), slots, full)

    def _operand(self, value: ir.Value) -> Operand | None:
        axes = self.structure.tensors.get(value.name or "")
        tensor = value.const_value
        dtype = value.dtype if value.dtype is not None else None if tensor is None else tensor.dtype
        if axes is None or dtype is None or dtype == ir.DataType.STRING:
            return None
        dims = self._dims(axes)
        if dtype not in _FLOATS and any(dim.slots for dim in dims):  # positions, which a cut renumbers
            return None
        return Operand(value.name or "", dtype, dims, tensor)

    def _dims(self, axes: Sequence[object]) -> tuple[Term, ...]:
        return tuple(self.cost.term((axis,)) for axis in axes)  # type: ignore[arg-type]

    def _edits(self, number: int, call: Call) -> list[Edit] | None:
        found: list[Edit] = []
        for site in call.sites:
            if isinstance(site, IndexSite):
                if site.result is not None and self.structure.free([site.source]):
                    return None
                continue
            assert isinstance(site, LengthSite)
            term = self.cost.term(site.axes)
            if term.slots:
                found.append(Edit(number, site.target, term, site.offset))
        return found


_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
