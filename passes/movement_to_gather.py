"""Movement to Gather: spell out which channels a chain of reshapes and transposes picks, where that frees some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphprune.cost import CostModel
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_walk import graphs
from graphprune.passes.base import Context, Pass, Report, register
from graphprune.passes.eliminate_dead_nodes import eliminate_dead_nodes
from graphprune.passes.movement_chains import Movement, movements
from graphprune.passes.tensors import Names, constant

__all__ = ["MovementToGather"]

_TRIALS = 32
"""Chains that are tried one by one; of more, only kinds are."""


@register
@dataclass(frozen=True)
class MovementToGather(Pass):
    """Replace movement that only picks positions of one dimension by one Gather, where more can be cut then.

    A rectangular reshape couples all positions that share a row or column (a channel shuffle ties each channel to its
    partners in the other groups), or pins them; a Gather with a constant index vector couples nothing. A chain is
    replaced only if the cuts that the analysis can make reach more of the model, or are finer: the model has more
    positions that can go one by one. It computes exactly the same.
    """

    requires: ClassVar[tuple[str, ...]] = ("canonicalize",)

    def run(self, model: ir.Model, context: Context) -> Report:
        """Try all chains together, then leave out those that free nothing."""
        with context.clock("movement"):
            found = movements(model)
            chosen = _worthwhile(model, found, context) if found else []
            _replace(model, (found[number] for number in chosen))
            if chosen:
                eliminate_dead_nodes(model)
        return Report(bool(chosen), {"chains replaced": len(chosen)} if chosen else {})


def _worthwhile(model: ir.Model, found: Sequence[Movement], context: Context) -> list[int]:
    """Numbers of the chains without which the analysis would reach less: all, or one kind after the other."""
    kinds: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, movement in enumerate(found):
        kinds.setdefault((movement.dim, movement.index), []).append(number)
    before = _freedom(model, context)
    chosen = list(range(len(found)))
    best = _trial(model, found, chosen, context)
    if best <= before:
        chosen, best = [], before
        for kind in list(kinds.values())[:_TRIALS]:
            more = sorted([*chosen, *kind])
            freedom = _trial(model, found, more, context)
            if freedom > best:
                chosen, best = more, freedom
    singles = [[number] for number in chosen] if len(chosen) <= _TRIALS else []
    for kind in (*kinds.values(), *singles) if chosen else ():
        fewer = [number for number in chosen if number not in kind]
        if len(fewer) < len(chosen):
            freedom = _trial(model, found, fewer, context)
            if freedom >= best:
                chosen, best = fewer, freedom
    return chosen


def _trial(model: ir.Model, found: Sequence[Movement], chosen: Iterable[int], context: Context) -> tuple[float, int]:
    """The freedom of a copy of the model in which some chains are replaced."""
    copy = model.clone()
    values = {
        value.name: value
        for graph in graphs(copy)
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs))
    }
    picked = (found[number] for number in chosen)
    _replace(copy, (Movement(values[m.root.name], values[m.result.name], m.dim, m.index) for m in picked))
    eliminate_dead_nodes(copy)
    return _freedom(copy, context)


def _freedom(model: ir.Model, context: Context) -> tuple[float, int]:
    """The share of parameters that can be reached, and how many positions can go one by one."""
    structure = read(model)
    cost = CostModel(structure, concrete_sizes(model, context.dims))
    reached = 1 - cost.floor.params / max(1, cost.total.params)
    return round(reached, 6), sum(group.size for group in structure.groups)


def _replace(model: ir.Model, chosen: Iterable[Movement]) -> None:
    names = Names(model)
    for movement in chosen:
        result, name = movement.result, movement.result.name or ""
        index = constant(model, names.fresh(f"{name}__index"), np.asarray(movement.index, np.int64))
        assert movement.root.shape is not None
        shape = list(movement.root.shape)
        shape[movement.dim] = len(movement.index)
        picked = ir.Value(name=name, shape=ir.Shape(shape), type=result.type)
        gather = ir.Node(
            "", "Gather", [movement.root, index], [ir.AttrInt64("axis", movement.dim)], outputs=[picked],
            name=names.fresh(f"{name}__gather"),
        )  # fmt: skip
        producer = result.producer()
        assert producer is not None
        assert isinstance(producer.graph, ir.Graph)
        producer.graph.insert_after(producer, gather)
        result.replace_all_uses_with(picked, replace_graph_outputs=True)
        result.name = names.fresh(f"{name}__moved")
