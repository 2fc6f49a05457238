"""Give every value and node of a model a name that nothing else in it has."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from graphprune.frontends.onnx_walk import graphs, nodes
from graphprune.passes.tensors import rename

__all__ = ["unique_names"]


def unique_names(model: ir.Model) -> int:
    """Make names unique over the graph and all its subgraphs; returns how many were given or changed.

    Names of the model's inputs and outputs never change, and the first holder of a name keeps it. An unnamed node is
    called after its operator and its place among the nodes of that operator (``Conv_3``), an unnamed value after
    its node.
    """
    return _unique_values(model) + _unique_nodes(model)


def _unique_values(model: ir.Model) -> int:
    main = model.graph
    values: dict[ir.Value, None] = dict.fromkeys((*main.inputs, *main.outputs))
    for graph in graphs(model):
        values.update(dict.fromkeys((*graph.inputs, *graph.initializers.values())))
        values.update(dict.fromkeys(output for node in graph for output in node.outputs))
    spelled = {value.name for value in values if value.name}
    taken: set[str] = set()
    changed = 0
    for value in values:
        producer = value.producer()
        if not value.name and not value.uses() and not value.is_graph_output() and producer is not None:
            continue
        if value.name and value.name not in taken:
            taken.add(value.name)
            continue
        stem = value.name or f"{producer.name or producer.op_type if producer else 'value'}_output"
        name = _free(stem, taken, spelled)
        rename(value, name)
        taken.add(name)
        changed += 1
    return changed


def _unique_nodes(model: ir.Model) -> int:
    everything = list(nodes(model))
    spelled = {node.name for node in everything if node.name}
    taken: set[str] = set()
    places: Counter[str] = Counter()
    changed = 0
    for node in everything:
        place = places[node.op_type]
        places[node.op_type] += 1
        if node.name and node.name not in taken:
            taken.add(node.name)
            continue
        stem = node.name or f"{node.op_type}_{place}"
        node.name = _free(stem, taken, spelled)
        taken.add(node.name)
        changed += 1
    return changed


def _free(stem: str, taken: set[str], spelled: set[str]) -> str:
    """Return ``stem`` or its first numbered form that is neither taken nor spelled anywhere in the model."""
    if stem not in taken and stem not in spelled:
        return stem
    count = 1
    while f"{stem}_{count}" in taken or f"{stem}_{count}" in spelled:
        count += 1
    return f"{stem}_{count}"
