"""How much of a program pruning can reach, and which operators lock the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from graphprune.axes import Axis, Leaf, Pin
from graphprune.cost import CostModel

__all__ = ["Ceiling", "LedgerEntry", "ceiling", "ledger"]

_INTERFACE = frozenset({"graph input", "graph output"})
_OWN = frozenset({"an axis that occurs in this operand alone", "a size of this operator's own", "a fixed factor"})
"""Reasons that pin an operator's own axes, such as those of a convolution's kernel: true, but never what locks it."""
_HERE = _OWN | {"this operator needs all its positions"}
"""The same of an operator that reads the tensor itself, where its rule keeps an axis such as a direction whole."""
_NOBODY = Pin("", "", "no group has a part in it")
_SCALAR = Pin("", "", "single numbers")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Shares, from 0 to 1, of parameters and multiply-accumulates that would go if every group were emptied."""

    params: float
    macs: float


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An operator that locks ``params`` parameters and ``macs`` multiply-accumulates, ``share`` of the whole's MACs.

    Where a program has no multiply-accumulates, ``share`` is that of its parameters.
    """

    op: str
    node: str
    reason: str
    params: int
    macs: int
    share: float


def ceiling(cost: CostModel) -> Ceiling:
    """How much of the program the groups reach."""
    total, floor = cost.total, cost.floor
    return Ceiling(_reached(total.params, floor.params), _reached(total.macs, floor.macs))


def _reached(total: int, floor: int) -> float:
    return 1 - floor / total if total else 0.0


def ledger(cost: CostModel) -> list[LedgerEntry]:
    """What locks everything that :func:`ceiling` says is out of reach, largest first; entries add up to it.

    A locked tensor or product has a pin on each of its axes. It is booked under one: the first cause of an axis that
    weights share with other tensors, an operator rather than the model's interface where there is a choice.
    """
    structure = cost.structure
    empty = cost.extents({group.leaf: 0 for group in structure.groups})
    weights = (axis for parameter in structure.counted for axis in structure.tensors[parameter.name] or ())
    weighty = {node for node in structure.space.nodes(weights) if isinstance(node, Leaf)}
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for call in structure.calls:
        for operand in call.operands:
            if operand is not None:
                readers[operand.name].add(call.node)
    macs: defaultdict[Pin, int] = defaultdict(int)
    params: defaultdict[Pin, int] = defaultdict(int)

    def cause(axes: Iterable[Axis], nodes: set[str]) -> Pin:
        leaves = [leaf for axis in axes for leaf in structure.leaves(axis)]
        if not leaves:
            return _SCALAR
        leaves = [leaf for leaf in leaves if leaf.pinned]
        return _cause([leaf for leaf in leaves if leaf in weighty] or leaves, nodes)

    for call, axes, term in cost.contractions:
        if locked := term.value(empty):
            macs[cause(axes, {call.node})] += locked
    for parameter, term in cost.parameters:
        if parameter.counts and (locked := term.value(empty)):
            params[cause(structure.tensors[parameter.name] or (), readers[parameter.name])] += locked
    total = cost.total
    entries = [
        LedgerEntry(
            pin.op,
            pin.node,
            pin.reason,
            params[pin],
            macs[pin],
            macs[pin] / total.macs if total.macs else params[pin] / total.params,
        )
        for pin in {**macs, **params}
    ]
    return sorted(entries, key=lambda entry: (-entry.share, -entry.params, entry.node, entry.reason))


def _cause(leaves: Iterable[Leaf], nodes: set[str]) -> Pin:
    """The pin to blame for ``leaves`` staying whole in the operators ``nodes``."""
    pins = list(dict.fromkeys(pin for leaf in leaves for pin in leaf.pins))
    outside = [pin for pin in pins if pin.node not in nodes or pin.reason not in _HERE]
    return min(outside or pins or [_NOBODY], key=lambda pin: (pin.reason in _OWN, pin.op in _INTERFACE))
