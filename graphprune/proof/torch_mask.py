"""The masked original of a PyTorch program: its graph, uncut, made blind to the positions that a selection removes.

A *sum* over a cut axis reads ``masked_fill(x, removed, 0)``, so what was there, even infinity, adds nothing. An
operator that takes *statistics* over a cut axis reads ``index_select(x, kept)`` of its operands, and its results are
spread out again to full size (a removed position gets a copy of some kept one, which nobody may look at); positions
among its results, of what was kept, are looked up in ``kept`` and so count all again. Every other
operator is left as it is. None of this is shared with the writer that slices, which is what makes agreement of the two
a proof.

An operator that works in place and has an operand hidden from it works out of place, and the result is copied to where
it would have been written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.frontends.torch_calls import Place, Sequences, arguments, binding_of, places, put, take, walk
from graphprune.frontends.torch_program import TorchProgram
from graphprune.proof.mixing import Hidden, hidden, repeating
from graphprune.proof.torch_graphs import copied
from graphprune.rules.call import AttributeTarget, Call, InputTarget
from graphprune.selection import Mask, Selection
from graphprune.structure import Structure

__all__ = ["masked_original"]

aten = torch.ops.aten

_Change = Callable[[int, fx.Node, int, int, Mask], fx.Node]


def masked_original(program: TorchProgram, structure: Structure, selection: Selection) -> fx.GraphModule:
    """A copy of the graph of ``program`` whose results do not depend on what ``selection`` removes.

    Weights are shared with it.

    Raises:
        ValueError: a mask cannot be put where it is needed; the message says why.
    """
    module = copied(program.module)
    nodes = {label: (node, owner) for label, node, owner in walk(module)}
    done: dict[str, Hidden] = {}
    for call in structure.calls:
        found = hidden(structure, call, selection, call.results)
        if call.node in done:  # one graph that is run more than once
            if found is None or not found.same(done[call.node]):
                raise ValueError(f"'{call.node}' is part of a graph that is run with different cuts")
            continue
        if found is not None:
            done[call.node] = found
            _Masker(*nodes[call.node], call, found).mask()
    for node, _ in nodes.values():
        # What a mask makes lies in memory in another order than what it replaces, and a view depends on that.
        if node.target is torch.ops.aten.view.default and not node.kwargs:
            node.target = torch.ops.aten.reshape.default
    for owner in {id(owner): owner for _, owner in nodes.values()}.values():
        owner.graph.lint()
        owner.recompile()
    return module


class _Masker:
    """Inserts what hides the removed positions from one node."""

    def __init__(self, node: fx.Node, owner: fx.GraphModule, call: Call, found: Hidden) -> None:
        if not isinstance(node.target, torch._ops.OpOverload):
            raise ValueError(f"'{node}' mixes positions and is not an ATen operator")
        self.node, self.owner, self.call, self.found = node, owner, call, found
        self.binding = binding_of(node.target)
        self.places = places(node, self.binding, arguments(node))

    def mask(self) -> None:
        """Hide what is to be hidden."""
        written = self._out_of_place()
        with self.owner.graph.inserting_before(self.node):
            for (number, dim), kept in self.found.zeroed.items():
                self._replace(number, dim, kept, self._zeroed)
            for (number, dim), kept in self.found.gathered.items():
                self._replace(number, dim, kept, self._gathered)
        for target, length in self.found.lengths.items():
            self._respell(target, length)
        for (number, dim), kept in self.found.spread.items():
            self._spread(number, dim, kept, written)
        for number, kept in self.found.positions.items():
            self._renumber(number, kept)
        if written is not None and not self.found.spread:
            self._then(self.node, lambda result: self._call(aten.copy_.default, written, result))

    # -- operands -------------------------------------------------------------------------------------------------

    def _replace(self, number: int, dim: int, kept: Mask, change: _Change) -> None:
        place = self._place(number)
        value = take(arguments(self.node), place)
        if not isinstance(value, fx.Node):
            raise ValueError(f"'{self.node}' mixes positions of an operand that is no tensor")
        rank = len(self.call.axes(number))
        outer = self.found.outer.get(("operand", (number, dim)))
        changed = self._apart(
            value, dim, outer, len(kept), lambda x, at, more: change(number, x, at, rank + more, kept)
        )
        self._put(place, changed)

    def _zeroed(self, number: int, x: fx.Node, dim: int, rank: int, kept: Mask) -> fx.Node:
        removed = self._constant(torch.from_numpy(~kept).reshape([-1] + [1] * (rank - 1 - dim)))
        neutral = self.found.neutral.get(number)
        place = self.places[neutral] if neutral is not None and neutral < len(self.places) else None
        zero: Any = 0 if place is None else take(arguments(self.node), place)
        if isinstance(zero, fx.Node):
            return self._call(aten.where.self, removed, self._call(aten.to.other, zero, x), x)
        return self._call(aten.masked_fill.Scalar, x, removed, zero or 0)

    def _gathered(self, number: int, x: fx.Node, dim: int, rank: int, kept: Mask) -> fx.Node:
        index = self._constant(torch.from_numpy(np.flatnonzero(kept)))
        return self._call(aten.index_select.default, x, dim, index)

    def _apart(
        self, x: fx.Node, dim: int, outer: bool | None, known: int, change: Callable[[fx.Node, int, int], fx.Node]
    ) -> fx.Node:
        """Change ``x`` along a dimension; the known part of one with a symbolic factor is set apart for the while."""
        if outer is None:
            return change(x, dim, 0)
        split = self._call(aten.unflatten.int, x, dim, [known, -1] if outer else [-1, known])
        return self._call(aten.flatten.using_ints, change(split, dim if outer else dim + 1, 1), dim, dim + 1)

    def _respell(self, target: AttributeTarget | InputTarget, length: int) -> None:
        """A number that spells the size of a gathered axis follows it."""
        if isinstance(target, AttributeTarget):
            spelled = self.binding.attributes.get(target.name, target.name) if self.binding is not None else target.name
            place = Place(spelled, target.index) if isinstance(spelled, str) else None
        else:
            place = self._place(target.operand)
            if isinstance(arguments(self.node)[place.name], Sequences):
                place = Place(place.name, target.index)
        if place is not None and place.name in arguments(self.node):
            self._put(place, length)

    # -- results --------------------------------------------------------------------------------------------------

    def _spread(self, number: int, dim: int, kept: Mask, written: fx.Node | None) -> None:
        """Give a result its full size again; ``written`` is where it would have gone in place."""
        outer = self.found.outer.get(("result", (number, dim)))
        index = torch.from_numpy(repeating(kept))

        def full(result: fx.Node) -> fx.Node:
            def gather(x: fx.Node, at: int, more: int) -> fx.Node:
                return self._call(aten.index_select.default, x, at, self._constant(index))

            whole = self._apart(result, dim, outer, int(np.count_nonzero(kept)), gather)
            return whole if written is None else self._call(aten.copy_.default, written, whole)

        for result in self._results(number):
            self._then(result, full)

    def _renumber(self, number: int, kept: Mask) -> None:
        """Let a result that counts the kept positions count all of them."""
        index = torch.from_numpy(np.flatnonzero(kept))
        for result in self._results(number):
            self._then(result, lambda x: self._call(aten.index.Tensor, self._constant(index), [x]))

    def _results(self, number: int) -> list[fx.Node]:
        """The nodes that stand for a result: the node itself, or where it is taken out of a tuple."""
        if not isinstance(self.node.meta.get("val"), Sequences):
            return [self.node]
        if any(user.target is not operator.getitem for user in self.node.users):
            raise ValueError(f"the results of '{self.node}' are used as a whole")
        return [user for user in self.node.users if user.args[1] == number]

    def _then(self, result: fx.Node, change: Callable[[fx.Node], fx.Node]) -> None:
        """Let everybody who reads ``result`` read what ``change`` makes of it."""
        users = list(result.users)
        with self.owner.graph.inserting_before(result.next):
            changed = change(result)
        for user in users:
            user.replace_input_with(result, changed)

    def _out_of_place(self) -> fx.Node | None:
        """What an operator that works in place would write to, where that is hidden; it then works out of place."""
        target = self.node.target
        assert isinstance(target, torch._ops.OpOverload)
        schema = target._schema
        names = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        hidden_names = {self._place(number).name for number, _ in (*self.found.zeroed, *self.found.gathered)}
        if hidden_names.isdisjoint(names) and not (names and self.found.spread):
            return None
        space, _, name = schema.name.partition("::")
        packet = getattr(getattr(torch.ops, space), name.rstrip("_"), None)
        if len(names) != 1 or len(self.found.spread) > 1 or packet is None or not name.endswith("_"):
            raise ValueError(f"'{schema.name}' writes in place and has no counterpart that does not")
        place = arguments(self.node)[names[0]]
        self.node.target = getattr(packet, target._overloadname)
        assert isinstance(place, fx.Node)
        return place

    # -- plumbing -------------------------------------------------------------------------------------------------

    def _place(self, number: int) -> Place:
        place = self.places[number] if number < len(self.places) else None
        if place is None:
            raise ValueError(f"'{self.node}' lacks operand {number}")
        return place

    def _put(self, place: Place, value: Any) -> None:
        if place.index is not None:
            whole = list(arguments(self.node)[place.name])
            whole[place.index] = value
            value = whole
        put(self.node, place.name, value)

    def _call(self, target: torch._ops.OpOverload, *args: Any) -> fx.Node:
        return self.owner.graph.call_function(target, args)

    def _constant(self, tensor: torch.Tensor) -> fx.Node:
        """A tensor of the graph's own, on the device on which the operator works."""
        made = self.node.meta.get("val")
        first = made[0] if isinstance(made, Sequences) and made else made
        if isinstance(first, torch.Tensor) and first.device.type != "meta":
            tensor = tensor.to(first.device)
        number = len(self.owner._buffers)
        while hasattr(self.owner, f"_mask_{number}"):
            number += 1
        self.owner.register_buffer(f"_mask_{number}", tensor, persistent=False)
        return self.owner.graph.get_attr(f"_mask_{number}")
