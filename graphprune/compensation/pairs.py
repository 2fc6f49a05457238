"""Which slim layer stands for which dense one, and what its result is to be.

A layer whose result is added to a residual stream is to make the *sum* what it was: its target takes back what is
missing in the stream by then. A BatchNorm in between is linear and is looked through.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.compensation.functions import bounds_of
from graphprune.forms import Array
from graphprune.frontends.program import Host
from graphprune.frontends.weight_access import get_weight, is_editable
from graphprune.layers import ADD, Layer, layers
from graphprune.rules.call import Axes, Call
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Norm", "Pair", "pairs", "restricted", "top_nodes"]

_NORMS = {"onnx.BatchNormalization": (1, 3, 4, "epsilon", 1e-5), "aten.batch_norm": (1, 3, 4, "eps", 1e-5)}
"""Operands that hold scale, mean and variance, and the attribute of what is added to the variance."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A BatchNorm that reads a layer's result: its parameters by name, ``gain`` what it multiplies each output by."""

    mean: str
    gain: Array


@dataclass(frozen=True, slots=True)
class Pair:
    """A slim layer, the dense one that it was, and the other addend of the sum that takes its result, if any.

    ``bounds`` are those of the activation that alone reads the sum, or the result where there is no addend;
    ``plain_bounds`` those of one that alone reads the result.
    """

    dense: Layer
    slim: Layer
    addend: str | None
    norm: Norm | None
    bounds: tuple[float, float] | None = None
    plain_bounds: tuple[float, float] | None = None
    fixed: bool = False

    @property
    def bias(self) -> str | None:
        """The parameter that takes a constant: the layer's own bias, or the mean of the BatchNorm behind it.

        None where there is none, or it is ``fixed`` because others read it too.
        """
        if self.fixed:
            return None
        return self.slim.bias or (self.norm.mean if self.norm is not None else None)


def pairs(dense: Structure, slim: Structure, host: Host, top: frozenset[str]) -> list[list[Pair]]:
    """Layers whose weights can be chosen anew, in reading order; those that share a weight together.

    ``top`` are the names of the nodes that are not inside a body.
    """
    before = {(layer.node, layer.x_dim): layer for layer in layers(dense)}
    readers: defaultdict[str, list[Call]] = defaultdict(list)
    for call in slim.calls:
        for operand in call.operands:
            if operand is not None:
                readers[operand.name].append(call)
    given = set(slim.outputs)
    alone = {name: users[0] for name, users in readers.items() if len(users) == 1 and name not in given}
    made = {name: number for number, call in enumerate(slim.calls) for name in call.results}
    order = {call.node: number for number, call in enumerate(slim.calls)}
    found: dict[str, list[Pair]] = {}
    uses: Counter[str] = Counter()
    for layer in layers(slim):
        uses[layer.weight] += 1
        old = before.get((layer.node, layer.x_dim))
        if old is None or layer.node not in top or not is_editable(host, layer.weight):
            continue
        norm, last = _norm(layer, alone, host)
        addend = _addend(last, alone, slim, made, order[layer.node])
        plain = _bounds(layer.y, alone)
        bounds = plain if addend is None else _bounds(alone[last].results[0], alone)
        if norm is not None:  # bounds are those of what comes out of the normalisation
            plain = bounds = None
        found.setdefault(layer.weight, []).append(Pair(old, layer, addend, norm, bounds, plain))
    whole = [own for weight, own in found.items() if len(own) == uses[weight] == len(readers[weight])]
    return [_with_constants(own, readers) for own in whole]


def _with_constants(problem: list[Pair], readers: Mapping[str, Sequence[Call]]) -> list[Pair]:
    """The pairs of one weight, their constants fixed where others read them too, or only some of them share one."""
    uses = Counter(pair.bias for pair in problem if pair.bias is not None)
    own = all(count == len(readers[name]) for name, count in uses.items())
    if own and (len(uses) <= 1 or set(uses.values()) == {1}):
        return problem
    return [replace(pair, fixed=True) for pair in problem]


def _norm(layer: Layer, alone: Mapping[str, Call], host: Host) -> tuple[Norm | None, str]:
    """The BatchNorm that alone reads a layer's result, and the name of the last result that is linear in it."""
    call = alone.get(layer.y)
    if call is None or (spec := _NORMS.get(call.op)) is None or call.attribute("training_mode", 0):
        return None, layer.y
    scale, mean, variance, attribute, default = spec
    names = [operand.name if operand is not None else "" for operand in call.operands]
    if len(names) <= variance or names[0] != layer.y or not is_editable(host, names[variance]):
        return None, layer.y
    if not is_editable(host, names[mean]) or call.attribute("training", False):
        return None, layer.y
    spread = np.sqrt(get_weight(host, names[variance]) + float(call.attribute(attribute, default)))
    own = get_weight(host, names[scale]) if is_editable(host, names[scale]) else np.ones_like(spread)
    return Norm(names[mean], own / spread), call.results[0]


def _addend(
    result: str, alone: Mapping[str, Call], structure: Structure, made: Mapping[str, int], before: int
) -> str | None:
    """The other operand of the sum that alone reads ``result``, if it is there before the layer runs."""
    call = alone.get(result)
    if call is None or call.op not in ADD or call.attribute("alpha", 1) != 1:
        return None
    names = [operand.name for operand in call.operands[:2] if operand is not None]
    others = [name for name in names if name != result]
    if len(names) != 2 or len(others) != 1 or others[0] in structure.parameters:
        return None
    own, other = structure.tensors.get(result), structure.tensors.get(others[0])
    if own is None or other is None or [axis.size for axis in own] != [axis.size for axis in other]:
        return None
    return others[0] if made.get(others[0], before) < before else None


def _bounds(result: str, alone: Mapping[str, Call]) -> tuple[float, float] | None:
    """Between which numbers the activation that alone reads ``result`` leaves it as it is, if it clips all others."""
    call = alone.get(result)
    first = None if call is None else call.operand(0)
    return bounds_of(call) if call is not None and first is not None and first.name == result else None


def top_nodes(host: Host) -> frozenset[str]:
    """The names of the nodes that are not inside a body."""
    nodes: Any = host.graph if isinstance(host, ir.Model) else host.module.graph.nodes
    return frozenset(node.name or "" for node in nodes)


def restricted(value: Array, axes: Axes, selection: Selection) -> Array:
    """The part of a dense value that a slim program has too."""
    for dim, axis in enumerate(axes):
        if isinstance(axis.size, int) and selection.cuts(axis):
            value = value.take(selection.positions(axis), axis=dim)
    return value
