"""Views of a structure: text that diffs, and a networkx graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphprune.axes import Leaf, Pin
from graphprune.coupling import Couplings, Relation
from graphprune.explanation import explain
from graphprune.structure import Group, Slice, Structure
from graphprune.text import operator, shortened, size_text

if TYPE_CHECKING:
    import networkx

__all__ = ["dump", "explain", "mixers", "to_dot", "to_graphml", "to_networkx"]

SHOWN = 4
"""Slices that a line lists before it counts the rest."""


def dump(structure: Structure, shown: int | None = SHOWN) -> str:
    """The groups of a structure, then what is pinned and why, one line each; the same for the same structure.

    ``shown`` bounds the slices of a line (None: all of them). Undeclared operators come last.
    """
    rows: list[tuple[str, str, str, str]] = []
    under = mixers(structure)
    for group in structure.groups:
        note = f"  (under {', '.join(under[group.leaf])})" if group.leaf in under else ""
        text = "  ".join(shortened([str(place) for place in group.slices], shown)) + note
        rows.append((group.name, f"{group.role}[{group.size}]", "exact" if group.exact else "inexact", text))
    for (size, reasons), places in _pinned(structure).items():
        rows.append(("--", f"pinned[{size}]", "", "  ".join([*shortened(places, shown), *reasons])))
    for op, count in sorted(structure.undeclared.items()):
        rows.append(("??", f"undeclared[{count}]", "", op))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    name, kind, exact = widths
    return "".join(f"{a:{name}}  {b:{kind}}  {c:{exact}}  {text}".rstrip() + "\n" for a, b, c, text in rows)


def mixers(structure: Structure) -> dict[Leaf, tuple[str, ...]]:
    """For each leaf whose removal differs from zeroing, the operators that take statistics over it."""
    found: dict[Leaf, dict[str, None]] = {}
    for call in structure.calls:
        for mix in call.mixes:
            if mix.kind == "statistics":
                for leaf in structure.leaves(mix.axis):
                    found.setdefault(leaf, {})[operator(call.op)] = None
    return {leaf: tuple(sorted(ops)) for leaf, ops in found.items()}


def _pinned(structure: Structure) -> dict[tuple[int, tuple[str, ...]], list[str]]:
    """Parameters' dimensions that are pinned, gathered by size and reasons, in reading order."""
    gathered: dict[tuple[int, tuple[tuple[str, str], ...]], dict[Slice, tuple[Pin, ...]]] = {}
    for parameter in structure.counted:
        name = parameter.name
        for dim, axis in enumerate(structure.tensors.get(name) or ()):
            for leaf in structure.leaves(axis):
                if leaf.pins and isinstance(leaf.size, int):
                    kinds = tuple(dict.fromkeys((pin.op, pin.reason) for pin in leaf.pins))
                    gathered.setdefault((leaf.size, kinds), {}).setdefault(Slice(name, dim), leaf.pins)
    result: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for (size, kinds), places in gathered.items():
        reasons = tuple(_reason(op, reason, [pin for pins in places.values() for pin in pins]) for op, reason in kinds)
        result.setdefault((size, reasons), []).extend(map(str, places))
    return result


def _reason(op: str, reason: str, pins: Sequence[Pin]) -> str:
    """A pin's text; it names the operator where all pins of this kind come from the same one."""
    nodes = {pin.node for pin in pins if (pin.op, pin.reason) == (op, reason)}
    where = operator(op) + (f" '{nodes.pop()}'" if len(nodes) == 1 else f" ({len(nodes)} times)")
    return where if op in ("graph input", "graph output") else f"{where}: {reason}"


def to_networkx(structure: Structure) -> networkx.MultiGraph:
    """The couplings as a graph: dimensions (``tensor:dim``) as nodes, operators as labelled edges, groups on top.

    Nodes have ``kind`` (``"axis"`` or ``"group"``); an axis has ``tensor``, ``dim``, ``size``, ``parameter``,
    ``pinned`` and ``groups``, a group ``role``, ``size`` and ``exact``. Edges have ``kind`` (``"operator"`` with
    ``op`` and ``node``, or ``"member"`` from a group to its parameters). All values are texts, numbers or booleans,
    so that every format of networkx can write them.
    """
    import networkx

    graph = networkx.MultiGraph()
    named = {group.leaf: group for group in structure.groups}
    for tensor, axes in structure.tensors.items():
        for dim, axis in enumerate(axes or ()):
            leaves = structure.leaves(axis)
            graph.add_node(
                f"{tensor}:{dim}",
                kind="axis",
                tensor=tensor,
                dim=dim,
                size=size_text(axis.size),
                parameter=tensor in structure.parameters,
                pinned=bool(leaves) and all(leaf.pinned for leaf in leaves),
                groups=" ".join(named[leaf].name for leaf in leaves if leaf in named),
            )
    couplings = Couplings(structure)
    for number, call in enumerate(structure.calls):
        for a, b in _edges(couplings.relation(number)):
            if str(a) in graph and str(b) in graph:
                graph.add_edge(str(a), str(b), kind="operator", op=call.op, node=call.node, label=operator(call.op))
    for group in structure.groups:
        _add_group(graph, group)
    return graph


def _add_group(graph: networkx.MultiGraph, group: Group) -> None:
    name = f"group {group.name}"
    graph.add_node(name, kind="group", role=group.role, size=str(group.size), exact=group.exact)
    for place in group.slices:
        graph.add_edge(name, str(place), kind="member", label="")


def _edges(relation: Relation) -> list[tuple[Slice, Slice]]:
    """For each leaf of an operator, edges from the first dimension that holds it to the others."""
    first: dict[Leaf, Slice] = {}
    edges: dict[tuple[Slice, Slice], None] = {}
    for place in relation.axes:
        for leaf in relation.leaves(place):
            hub = first.setdefault(leaf, place)
            if hub != place:
                edges[hub, place] = None
    return list(edges)


def to_graphml(graph: networkx.MultiGraph) -> str:
    """The graph of :func:`to_networkx` as GraphML."""
    import networkx

    return "\n".join(networkx.generate_graphml(graph, named_key_ids=True)) + "\n"


def to_dot(graph: networkx.MultiGraph) -> str:
    """The graph of :func:`to_networkx` for Graphviz: groups as boxes, pinned axes in grey, operators on the edges."""
    lines = ["graph couplings {", "  node [shape=plaintext];"]
    for node, data in graph.nodes(data=True):
        style = ""
        if data["kind"] == "group":
            label = f"{node}: {data['role']}[{data['size']}]"
            style = f" [shape=box, label={_quoted(label)}]"
        elif data["pinned"]:
            style = " [fontcolor=gray]"
        lines.append(f"  {_quoted(node)}{style};")
    for a, b, data in graph.edges(data=True):
        style = "style=dashed" if data["kind"] == "member" else f"label={_quoted(data['label'])}"
        lines.append(f"  {_quoted(a)} -- {_quoted(b)} [{style}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
