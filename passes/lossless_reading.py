"""One sweep over a graph: facts of every tensor, and what each sum over a free axis makes of its positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.frontends.onnx_walk import nodes as all_nodes
from graphprune.passes.lossless_contractions import Contraction, contraction
from graphprune.passes.lossless_evaluate import constant_tensor, evaluate
from graphprune.passes.lossless_facts import (
    MAX_ENTRIES,
    Array,
    Fact,
    Labels,
    along,
    constant,
    number,
    opaque,
)
from graphprune.passes.lossless_movement import RULES
from graphprune.passes.lossless_results import EXACT, Result
from graphprune.passes.lossless_rules import Sizes
from graphprune.passes.lossless_weights import Kernel, read_kernel
from graphprune.passes.tensors import is_constant
from graphprune.rules.call import Call, Declined, Mix
from graphprune.structure import Structure

__all__ = ["Reading", "Sweep"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sum makes of the positions of one dimension that it sums over.

    ``harmless``: the position adds nothing, or a constant that a bias can hold. ``label``: positions of equal label
    always hold equal numbers, or multiples of each other by ``level``, and their columns may be added up; None where
    that cannot be.
    """

    call: Call
    mix: Mix
    operand: int
    dim: int
    harmless: npt.NDArray[np.bool_]
    label: Labels | None = None
    level: npt.NDArray[np.float64] | None = None
    contraction: Contraction | None = None
    unread: npt.NDArray[np.bool_] | None = None
    x: Fact | None = None


def _seen_by_others(call: Call, mix: Mix) -> tuple[tuple[int, int], ...]:
    """Where other positions see a position: of a recurrent weight only its columns, not the unit's own gates."""
    recurrent = call.op in ("onnx.LSTM", "onnx.GRU", "onnx.RNN")
    return tuple(place for place in mix.operands if not recurrent or place != (2, 1))


def _kernel(tensor: ir.TensorProtocol, view: Contraction) -> Kernel | None:
    try:
        return read_kernel(tensor, view.rows, view.columns)
    except ValueError:
        return None


def _multiples(x: Fact, node: ir.Node, view: Contraction) -> tuple[Labels, npt.NDArray[np.float64] | None]:
    """Labels that constants share, for each is a multiple of any other, and by what they are.

    That takes a weight that meets one number in each column. Constants far smaller than others keep to themselves.
    """
    weight = node.inputs[view.weight]
    size = np.abs(x.value.astype(np.float64))
    alike = x.known & (size > 0) & (size >= 2.0**-10 * size.max(initial=0, where=x.known))
    if (view.groups > 1 and not view.wide) or weight is None or len(weight.uses()) != 1 or not alike.any():
        return x.label, None
    return number(alike, np.where(alike, 0, x.label)), np.where(alike, x.value.astype(np.float64), 1.0)


def _stored(tensor: ir.TensorProtocol) -> int:
    """Bytes that a tensor really has: a repeated number has none."""
    repeated = isinstance(tensor, ir.Tensor) and isinstance(tensor.raw, np.ndarray) and not any(tensor.raw.strides)
    return 0 if repeated else tensor.nbytes


class Sweep:
    """Facts of all tensors of a model in reading order, found by :meth:`run`."""

    def __init__(self, model: ir.Model, structure: Structure, max_bytes: int) -> None:
        self.model, self.structure, self.max_bytes = model, structure, max_bytes
        self.nodes = {node.name: node for node in all_nodes(model)}
        self.contractions = {call.node: contraction(call) for call in structure.calls}
        self.facts: dict[str, Fact | None] = {}
        self.readings: list[Reading] = []
        self.unread: set[str] = set()
        """Weights that were too large to look at."""

    def run(self) -> None:
        """Visit every call."""
        for call in self.structure.calls:
            node = self.nodes[call.node]
            found = self._visit(call, node)
            for output, made in zip(node.outputs, found, strict=False):
                self.facts[output.name or ""] = self._checked(output, made)

    def _visit(self, call: Call, node: ir.Node) -> Sequence[Fact | None]:
        mixes = [mix for mix in call.mixes if mix.kind == "sum" and self.structure.free([mix.axis])]
        view = self.contractions[call.node]
        if view is None:
            for mix in mixes:
                self._plain_reading(call, node, mix)
            rule = RULES.get(call.op)
            if rule is None:
                return []
            try:
                return rule(self, node, call)
            except Declined:
                return []
        free_result = any(self.structure.free(self.structure.tensors.get(name) or ()) for name in call.results)
        return [self._contract(call, node, view, mixes)] if mixes or free_result else []

    def _checked(self, value: ir.Value, made: Fact | None) -> Fact | None:
        """A fact whose entries contradict the tensor's sizes is not believed."""
        sizes = self.sizes(value)
        if sizes is None:
            return None
        if made is None or made.label.ndim != len(sizes):
            return opaque(len(sizes))
        fits = all(a in (1, b) for a, b in zip(made.label.shape, sizes, strict=True))
        return made if fits else opaque(len(sizes))

    # -- what rules ask -------------------------------------------------------------------------------------------

    def sizes(self, value: ir.Value | None) -> Sizes | None:
        """The sizes of a value; None where its rank is unknown."""
        axes = self.structure.tensors.get(value.name or "") if value is not None else None
        return None if axes is None else tuple(axis.size for axis in axes)

    def constant(self, value: ir.Value | None) -> Array | None:
        """The contents of a value that is always the same, if it is small enough to be looked at."""
        tensor = constant_tensor(self.model, value, self.max_bytes)
        if tensor is None or tensor.nbytes > self.max_bytes or tensor.dtype == ir.DataType.STRING:
            return None
        return tensor.numpy()

    def evaluate(self, node: ir.Node, arrays: Sequence[Array | None]) -> Array | None:
        """The first output of a node for given operands."""
        return evaluate(self.model, node, arrays)

    def fact(self, value: ir.Value | None) -> Fact | None:
        """What holds for a value; None where its rank is unknown."""
        sizes = self.sizes(value)
        if value is None or sizes is None:
            return None
        name = value.name or ""
        if name not in self.facts:
            made = None
            if is_constant(value) and value.const_value is not None and value.const_value.size <= MAX_ENTRIES:
                array = self.constant(value)
                made = None if array is None else constant(array)
            self.facts[name] = made if made is not None else opaque(len(sizes))
        return self.facts[name]

    # -- sums -----------------------------------------------------------------------------------------------------

    def _plain_reading(self, call: Call, node: ir.Node, mix: Mix) -> None:
        """A sum about which only its operands are known: what is zero adds nothing."""
        places = set(mix.operands)
        if call.op == "onnx.MatMul":
            ranks = [len(self.sizes(value) or ()) for value in node.inputs]
            places |= {(0, ranks[0] - 1), (1, max(ranks[1] - 2, 0))}
        for operand, dim in _seen_by_others(call, mix):
            size = self._size(node, operand, dim)
            harmless = np.zeros(size or 0, np.bool_)
            for other, other_dim in places:
                line = self._line(node, other, other_dim)
                if size and line is not None and len(line.label) == size:
                    harmless |= line.known & (line.value == 0)
            self.readings.append(Reading(call, mix, operand, dim, harmless))

    def _size(self, node: ir.Node, operand: int, dim: int) -> int | None:
        sizes = self.sizes(node.inputs[operand])
        size = None if sizes is None else sizes[dim]
        return size if isinstance(size, int) else None

    def _line(self, node: ir.Node, operand: int, dim: int) -> Fact | None:
        value = node.inputs[operand]
        found, sizes = self.fact(value), self.sizes(value)
        if found is None or sizes is None or not isinstance(sizes[dim], int) or len(found.label.shape) != len(sizes):
            return None
        return along(found, sizes, dim)

    def _contract(self, call: Call, node: ir.Node, view: Contraction, mixes: Sequence[Mix]) -> Fact | None:
        tensor = self._weight(node, view)
        kernel = None if tensor is None else _kernel(tensor, view)
        x = self._line(node, *view.x)
        if x is None:
            for mix in mixes:
                self._plain_reading(call, node, mix)
            return None
        zero = x.known & (x.value == 0)
        unread = np.zeros(len(zero), np.bool_)
        constants = zero
        if kernel is not None:
            blocks = kernel.zero if view.wide else kernel.zero.reshape(view.groups, -1, kernel.zero.shape[1])
            unread = blocks.all(axis=-2).reshape(-1)
            constants = x.known if view.uniform else zero
        editable = kernel is not None and self._editable(node, view)
        harmless = unread | zero
        if editable and self._absorbs(node, view):
            harmless = harmless | constants
        label, level = _multiples(x, node, view) if editable else (None, None)
        for mix in mixes:
            if view.x in mix.operands:
                operand, dim = view.x
                self.readings.append(Reading(call, mix, operand, dim, harmless, label, level, view, unread, x))
            else:
                self._plain_reading(call, node, mix)
        if tensor is None or kernel is None:
            return None
        made = Result(self, node, view, tensor, kernel, x).fact()
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
        return made

    def _weight(self, node: ir.Node, view: Contraction) -> ir.TensorProtocol | None:
        value = node.inputs[view.weight]
        tensor = constant_tensor(self.model, value, self.max_bytes)
        if tensor is None:
            return None
        if _stored(tensor) > self.max_bytes:
            self.unread.add(value.name or "" if value is not None else "")
            return None
        return tensor

    def _editable(self, node: ir.Node, view: Contraction) -> bool:
        """Whether columns of the weight may be added up: every use of it sums over the same columns."""
        value = node.inputs[view.weight]
        if value is None or not is_constant(value) or value.is_graph_output() or value.dtype not in EXACT:
            return False
        for user, number_ in value.uses():
            other = self.contractions.get(user.name or "")
            if other is None or (other.weight, other.columns) != (number_, view.columns):
                return False
        return True

    def _absorbs(self, node: ir.Node, view: Contraction) -> bool:
        """Whether a constant can be added after the sum."""
        if view.addable:
            return True
        if view.bias is None or view.beta == 0 or not view.uniform or view.wide:
            return False
        bias = node.inputs[view.bias] if view.bias < len(node.inputs) else None
        sizes, made = self.sizes(bias), self.sizes(node.outputs[0])
        if bias is None:
            return True
        return is_constant(bias) and bias.dtype in EXACT and made is not None and sizes == (made[view.result or 0],)
