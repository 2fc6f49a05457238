"""SynFlow: how much of the flow through a network of absolute weights goes through a position.

``R = 1^T (prod |W_l|) 1``, ``s[k] = sum over the weights w of the position of |w| dR/d|w|``, as a share of R (Tanaka et
al. 2020, https://arxiv.org/abs/2006.05467). Needs no data, not even gradients: with absolute weights and an input of
ones the network is linear, so forward and backward sums over its layers give the derivative in closed form, on both
hosts. In one pass: the paper prunes in a hundred small steps, which a pipeline of several ``prune`` does.

What it is exact for: chains and residual networks of layers with stored weights, element-wise activations, averages and
concatenations, up to the borders of images (a channel has one amount, so a kernel counts by its sum). Batch
normalisation scales by ``|gamma| / sigma``, other normalisations by ``|gamma|``, unless what they normalise is used
beside them (before a branch). Products of activations count as sums,
and what no layer reads (queries and keys, whose product picks but carries nothing) counts as an end of the network.
Axes that nothing flows through are judged by the L2 norm of their slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graphprune.axes import Axis
from graphprune.rules.call import Call
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.filters import Filters, Matrix, filters
from graphprune.score.flow import Amounts, Key
from graphprune.score.norms import norms
from graphprune.score.pools import where_missing
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction
from graphprune.score.scales import scale_of

__all__ = ["SynFlow"]


@dataclass(frozen=True, slots=True)
class SynFlow:
    """The share of all paths from inputs to outputs, weighted by their absolute weights, that a position is on."""

    reduction: Reduction = "sum"
    name: str = "synflow"
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """Each weight is read twice, one at a time."""
        positions = Positions(evidence.structure)
        reduced = Reduced(positions, self.reduction)
        steps = _steps(evidence)
        forward = Amounts(evidence.structure.space)
        for step in steps:
            step.forward(forward)
        ends = set(forward.held) - {key for step in steps for key in step.sources}
        backward = Amounts(evidence.structure.space, unit=0.0)
        for key in forward.held:
            backward.fill(key, 1.0 if key in ends else 0.0)
        total = forward.total(ends)
        if total > 0:
            for step in reversed(steps):
                step.backward(backward, math.log(total) + forward.scale, reduced)
        values = where_missing(
            positions, reduced.result(), reduced.seen, lambda: np.sqrt(norms(evidence, positions, 2, "mean"))
        )
        return positions.split(values)


@dataclass(slots=True)
class _Layer:
    """A layer that adds ``matrix @ read(inputs)`` to its outputs."""

    inputs: Axis
    outputs: Axis
    matrix: Callable[[], Matrix]
    """Absolute weights, ``(groups, outputs, inputs)``."""
    own: tuple[Axis, Axis]
    """The axes of inputs and outputs in the weight, where one of them is that of each group."""
    sources: set[Key] = field(default_factory=set)
    _x: Numbers | None = None
    _y: Numbers | None = None
    _scale: float = 0.0

    def forward(self, amounts: Amounts) -> None:
        self.sources, self._x, self._scale = amounts.sources(self.inputs), amounts.read(self.inputs), amounts.scale
        matrix = self.matrix()
        self._y = np.einsum("goi,gi->go", matrix, self._x.reshape(len(matrix), -1)).reshape(-1).astype(np.float64)
        amounts.add(self.outputs, self._y)

    def backward(self, amounts: Amounts, total: float, reduced: Reduced) -> None:
        assert self._x is not None
        assert self._y is not None
        gradient = amounts.read(self.outputs)
        share = math.exp(self._scale + amounts.scale - total)
        matrix = self.matrix()
        inner = np.einsum("goi,go->gi", matrix, gradient.reshape(len(matrix), -1)).reshape(-1).astype(np.float64)
        for axis, flow in zip(self.own, (self._x * inner, self._y * gradient), strict=True):
            reduced.add(axis, flow.reshape(-1, int(axis.size)).sum(0) * share)  # type: ignore[arg-type]
        amounts.add_where_read(self.inputs, inner, self.sources)


@dataclass(slots=True)
class _Scale:
    """What scales each position of an axis; ``counts`` where its numbers are weights of the positions."""

    axis: Axis
    factors: Callable[[], Numbers]
    counts: bool
    sources: set[Key] = field(default_factory=set)
    _own: set[Key] = field(default_factory=set)
    _y: Numbers | None = None
    _scale: float = 0.0

    def forward(self, amounts: Amounts) -> None:
        self._own = amounts.sources(self.axis)
        amounts.multiply(self.axis, self.factors(), self._own)
        self._y, self._scale = amounts.read(self.axis), amounts.scale

    def backward(self, amounts: Amounts, total: float, reduced: Reduced) -> None:
        assert self._y is not None
        if self.counts:
            share = math.exp(self._scale + amounts.scale - total)
            reduced.add(self.axis, self._y * amounts.read(self.axis, self._own) * share)
        amounts.multiply(self.axis, self.factors(), self._own)


def _steps(evidence: Evidence) -> list[_Layer | _Scale]:
    structure = evidence.structure
    made = {id(layer.call): layer for layer in filters(structure)}
    scales = {id(call): name for call in structure.calls if (name := scale_of(call, structure)) is not None}
    alone = _alone(evidence, made.keys() | scales.keys())
    steps: list[_Layer | _Scale] = []
    for call in structure.calls:
        layer, name = made.get(id(call)), scales.get(id(call))
        if layer is not None:
            matrix = partial(_weights, layer, evidence)
            if layer.apart and id(call) in alone:
                steps.append(_Scale(layer.axis, partial(_diagonal, matrix), True))
            else:
                steps.append(_Layer(layer.inputs, layer.axis, matrix, layer.own(structure)))
        elif name is not None and id(call) in alone:
            axes = [axis for axis in structure.tensors[name] or () if axis.size != 1]
            if len(axes) == 1:
                steps.append(_Scale(axes[0], partial(_factors, call, name, evidence), False))
    return steps


def _alone(evidence: Evidence, marked: Set[int]) -> set[int]:
    """Those of the ``marked`` calls that alone read what another of them has made, perhaps through an activation.

    What they do to an amount can be done in place; others work on a branch while their input lives on beside it.
    """
    roots: dict[str, int] = {}
    leaving: dict[int, set[int]] = {}
    for call in evidence.structure.calls:
        names = {operand.name for operand in call.operands if operand is not None and not operand.constant}
        read = {roots.get(name, 0) for name in names - evidence.structure.parameters.keys()}
        own = id(call)
        if own not in marked and len(read) == 1:
            own = next(iter(read))
        else:
            for root in read:
                leaving.setdefault(root, set()).add(own)
        roots.update(dict.fromkeys(call.results, own if own in marked else 0))
    return {next(iter(calls)) for root, calls in leaving.items() if root and len(calls) == 1} & marked


def _diagonal(matrix: Callable[[], Matrix]) -> Numbers:
    return matrix()[:, 0, 0].astype(np.float64)


def _weights(layer: Filters, evidence: Evidence) -> Matrix:
    """Absolute weights, summed over the kernel: ``(groups, outputs, inputs)``."""
    weight = evidence.array(layer.weight)
    matrix = layer.matrix(np.abs(weight.astype(np.float64 if weight.size <= 1 << 20 else np.float32)))
    groups, outputs, _ = matrix.shape
    inputs = int(layer.inputs.size) // groups  # type: ignore[arg-type]
    summed: Matrix = np.abs(matrix).reshape(groups, outputs, inputs, -1).sum(-1)
    return summed / inputs if layer.table else summed


def _factors(call: Call, name: str, evidence: Evidence) -> Numbers:
    """By what a normalisation scales each position: batch normalisation divides by deviations that it has stored."""
    scale: Numbers = np.abs(evidence.array(name).astype(np.float64)).reshape(-1)
    variance = call.operand(4) if "batch_norm" in call.op or call.op == "onnx.BatchNormalization" else None
    if variance is None or variance.name not in evidence.structure.parameters:
        return scale
    small = float(call.attribute("epsilon", call.attribute("eps", 1e-5)))
    return scale / np.sqrt(evidence.array(variance.name).astype(np.float64).reshape(-1) + small)


register("synflow", lambda _: SynFlow())
