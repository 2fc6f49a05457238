"""How alike the positions of an axis are, told from weights alone: moments of what a network computes, without data.

What enters a layer is taken for white noise, so that the covariance of its results is that of its filters, ``F F'``,
and their mean its bias. A depthwise convolution, which treats each position by itself, scales covariances by the
products of its filters. From there on every number is taken for a Gaussian one.

A function ``f`` of each number is expanded in Hermite polynomials (Mehler's formula), with ``c_1`` and ``c_2`` its
coefficients and the rest of its variance taken for a third one, so that ``f(z)`` of equal positions stay equal and, if
``f`` is positively homogeneous, of parallel ones parallel::

    cov f = p c_1 c_1' + p^2 / 2 c_2 c_2' + p^3 r r'        (p: correlations; products element by element)

Behind a batch normalisation means and variances are known: they are its shift and its squared scale. The terms of sums
and the parts of concatenations count as independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Concat, Product
from graphprune.compensation.functions import NORMS, Function, function_of, named
from graphprune.frontends.program import Host
from graphprune.frontends.weight_access import get_weight, is_editable
from graphprune.layers import Layer, layers
from graphprune.rules.call import Call, Operand
from graphprune.structure import Structure

__all__ = ["Blocked", "Likeness", "Moments", "is_depthwise"]

Numbers = npt.NDArray[np.float64]

MOST = 4096
"""Positions of an axis up to which it is looked at: covariances are square."""
_NODES, _DENSITY = np.polynomial.hermite_e.hermegauss(48)
_DENSITY = _DENSITY / _DENSITY.sum()


class Blocked(Exception):
    """Nothing can be told of a tensor's positions, for this reason."""


class _Wanted(Exception):
    """The moments of another tensor are needed first."""

    def __init__(self, place: tuple[str, int]) -> None:
        super().__init__(place)
        self.place = place


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (n,) and covariance (n, n) of n positions; a dimension holds them as ``outer x n x inner``."""

    mean: Numbers
    cov: Numbers
    outer: int = 1
    inner: int = 1

    def second(self) -> Numbers:
        """The second moments about zero."""
        return self.cov + np.outer(self.mean, self.mean)


def is_depthwise(layer: Layer, weight: npt.NDArray[Any]) -> bool:
    """Whether each output of a layer is made of one input, and each input makes one output."""
    groups, outputs, features = layer.form.matrix(weight).shape
    return bool(groups > 1 and outputs == 1 and features == layer.form.taps)


class Likeness:
    """Moments of a program's tensors, worked out where they are asked for and remembered."""

    def __init__(self, structure: Structure, host: Host) -> None:
        self.structure, self.host = structure, host
        self.layers = layers(structure)
        self._layers = {layer.y: layer for layer in self.layers}
        self._makers = {name: call for call in structure.calls for name in call.results}
        self._known: dict[tuple[str, int], Moments | Blocked] = {}

    def moments(self, tensor: str, dim: int) -> Moments:
        """Moments of the positions along a dimension of a tensor.

        Raises:
            Blocked: an operator on the way mixes positions, or makes of them what is not followed.
        """
        axes = self.structure.tensors.get(tensor)
        if axes is None:
            raise Blocked("a tensor of unknown shape")
        first = (tensor, dim % len(axes))
        stack = [first]
        while stack:  # not by recursion: networks are deeper than Python's stack
            place = stack[-1]
            try:
                self._known.setdefault(place, self._made(*place))
            except _Wanted as wanted:
                stack.append(wanted.place)
                continue
            except Blocked as reason:
                self._known[place] = reason
            stack.pop()
        return self._get(*first)

    def _get(self, tensor: str, dim: int) -> Moments:
        found = self._known.get((tensor, dim))
        if found is None:
            raise _Wanted((tensor, dim))
        if isinstance(found, Blocked):
            raise found
        return found

    # -- what makes a tensor --------------------------------------------------------------------------------------

    def _made(self, tensor: str, dim: int) -> Moments:
        axis = self._axis(tensor, dim)
        if not isinstance(axis.size, int) or axis.size > MOST * 64:
            raise Blocked("an axis of unknown or great size")
        if tensor in self.structure.parameters:
            return self._stored(tensor, dim)
        layer, call = self._layers.get(tensor), self._makers.get(tensor)
        if layer is not None and dim == layer.y_dim:
            return self._product(layer)
        if call is None:
            return _white(axis.size)
        name = named(call)
        if name in _JOINS:
            return self._joined(call, dim)
        carriers = self._carriers(call, axis)
        if any(self.structure.share(mix.axis, [axis]) for mix in call.mixes):
            raise Blocked(f"{call.op} mixes positions")
        if name in NORMS:
            return self._normalised(call, carriers)
        if name in _SUMS:
            return self._sum(call, axis, dim, -1.0 if name == "sub" else 1.0)
        if name in _PRODUCTS:
            return self._times(call, axis, dim, inverse=name == "div")
        function = function_of(call)
        if len(carriers) != 1:
            raise Blocked(f"{call.op} joins tensors" if carriers else f"{call.op} makes new positions")
        moments = self._carried(*carriers[0], axis)
        return moments if function is None else through(function, moments)

    def _axis(self, tensor: str, dim: int) -> Axis:
        return self.structure.space.find(self.structure.axis(tensor, dim))

    def _carriers(self, call: Call, axis: Axis) -> list[tuple[Operand, int]]:
        """The operands, and their dimensions, that hold positions of ``axis``."""
        found: list[tuple[Operand, int]] = []
        for operand in call.operands:
            if operand is None or not operand.axes:
                continue
            exact = [dim for dim, own in enumerate(operand.axes) if self.structure.space.find(own) is axis]
            near = [
                dim
                for dim, own in enumerate(operand.axes)
                if own.size != 1 and self.structure.free([own]) and self.structure.share(own, [axis])
            ]
            found.extend((operand, dim) for dim in (exact or near)[:1])
        return found

    def _carried(self, operand: Operand, dim: int, axis: Axis) -> Moments:
        """Moments of an operand's positions as those of ``axis``, of which they may be a factor or a part."""
        space, own = self.structure.space, self._axis(operand.name, dim)
        moments = self._get(operand.name, dim)
        if own is axis:
            return moments
        if moments.outer * moments.inner != 1:
            raise Blocked("positions are reshaped twice")
        if isinstance(axis, Product):
            parts = space.parts(axis)
            for number, part in enumerate(parts):
                if part is own:
                    sizes = [int(each.size) for each in parts]  # type: ignore[arg-type]
                    return replace(moments, outer=int(np.prod(sizes[:number])), inner=int(np.prod(sizes[number + 1 :])))
        start = self._offset(axis, own)
        if start is not None:
            return _within(moments, start, int(axis.size))  # type: ignore[arg-type]
        start = self._offset(own, axis)
        if start is not None:
            end = start + int(axis.size)  # type: ignore[arg-type]
            return Moments(moments.mean[start:end], moments.cov[start:end, start:end])
        raise Blocked("positions are rearranged")

    def _offset(self, whole: Axis, part: Axis) -> int | None:
        """Where ``part`` begins in a concatenation."""
        start = 0
        stack = [whole]
        while stack:
            node = stack.pop()
            if node is part:
                return start
            if isinstance(node, Concat):
                stack.extend(reversed(self.structure.space.parts(node)))
            else:
                start += int(node.size)  # type: ignore[arg-type]
        return None

    # -- kinds of operators ---------------------------------------------------------------------------------------

    def _stored(self, name: str, dim: int) -> Moments:
        if not is_editable(self.host, name):
            raise Blocked("a weight that is no floating-point number")
        weight = get_weight(self.host, name).astype(np.float64)
        rows = np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)
        if len(rows) > MOST:
            raise Blocked("an axis of great size")
        mean = rows.mean(1)
        centred = rows - mean[:, None]
        return Moments(mean, centred @ centred.T / rows.shape[1])

    def _product(self, layer: Layer) -> Moments:
        if not is_editable(self.host, layer.weight):
            raise Blocked("a weight that is no floating-point number")
        weight = get_weight(self.host, layer.weight).astype(np.float64)
        matrix = layer.form.matrix(weight)
        groups, outputs, _ = matrix.shape
        if groups * outputs > MOST:
            raise Blocked("an axis of great size")
        bias = np.zeros(groups * outputs)
        if layer.bias is not None:
            bias = self._vector(layer.bias, len(bias))
        if is_depthwise(layer, weight):
            x = self._get(layer.x, layer.x_dim)
            filters = matrix[:, 0]
            if x.outer * x.inner != 1 or len(x.mean) != len(filters):
                raise Blocked("a product whose sides are not followed")
            return Moments(bias, x.second() * (filters @ filters.T))
        cov = np.zeros((groups, outputs, groups, outputs))
        for group, own in enumerate(matrix):
            cov[group, :, group] = own @ own.T
        return Moments(bias, cov.reshape(groups * outputs, -1))

    def _normalised(self, call: Call, carriers: list[tuple[Operand, int]]) -> Moments:
        """Batch normalisation makes the mean its shift and the deviation its scale."""
        x = self._get(*self._first(carriers))
        scale, shift = (self._given(call.operand(number), len(x.mean), 2.0 - number) for number in (1, 2))
        deviation = np.sqrt(np.maximum(np.diag(x.cov), 1e-30))
        return Moments(shift, x.cov * np.outer(scale / deviation, scale / deviation), x.outer, x.inner)

    @staticmethod
    def _first(carriers: list[tuple[Operand, int]]) -> tuple[str, int]:
        if not carriers:
            raise Blocked("a normalisation that is not followed")
        return carriers[0][0].name, carriers[0][1]

    def _given(self, operand: Operand | None, size: int, default: float) -> Numbers:
        return np.full(size, default) if operand is None else self._vector(operand.name, size)

    def _vector(self, name: str, size: int) -> Numbers:
        if name not in self.structure.parameters or not is_editable(self.host, name):
            raise Blocked("a scale or shift that is no stored number")
        values = get_weight(self.host, name).astype(np.float64).reshape(-1)
        if len(values) != size:
            raise Blocked("a scale or shift that is not followed")
        return values

    def _terms(self, call: Call, axis: Axis, dim: int) -> list[Moments]:
        """Moments of the operands that have the positions of ``axis`` in the dimension that is aligned with ``dim``."""
        found = []
        rank = len(self.structure.tensors[call.results[0]] or ())
        for operand in call.operands:
            if operand is None or not operand.axes:
                continue
            at = dim - rank + len(operand.axes)
            if at < 0 or operand.axes[at].size == 1:
                continue
            found.append(self._carried(operand, at, axis))
        if not found:
            raise Blocked(f"{call.op} makes new positions")
        if len({(each.outer, each.inner, len(each.mean)) for each in found}) != 1:
            raise Blocked(f"{call.op} joins what was reshaped with what was not")
        return found

    def _sum(self, call: Call, axis: Axis, dim: int, sign: float) -> Moments:
        first, *others = self._terms(call, axis, dim)
        for other in others:
            first = replace(first, mean=first.mean + sign * other.mean, cov=first.cov + other.cov)
        return first

    def _times(self, call: Call, axis: Axis, dim: int, *, inverse: bool) -> Moments:
        first, *others = self._terms(call, axis, dim)
        for other in others:
            if inverse:
                if other.cov.any() or not other.mean.all():
                    raise Blocked(f"{call.op} divides by what is computed")
                other = replace(other, mean=1 / other.mean)
            mean = first.mean * other.mean
            cov = first.second() * other.second() - np.outer(mean, mean)
            first = replace(first, mean=mean, cov=cov)
        return first

    def _joined(self, call: Call, dim: int) -> Moments:
        parts = [operand for operand in call.operands if operand is not None and operand.axes]
        axis = self._axis(call.results[0], dim)
        sizes = [part.axes[dim].size for part in parts if part.axes]
        if not all(isinstance(size, int) for size in sizes) or sum(map(int, sizes)) != axis.size:  # type: ignore[arg-type]
            raise Blocked(f"{call.op} joins tensors")
        found = [self._get(part.name, dim) for part in parts]
        if any(each.outer * each.inner != 1 for each in found):
            raise Blocked("positions are reshaped twice")
        cov = np.zeros((int(axis.size), int(axis.size)))  # type: ignore[arg-type]
        start = 0
        for each in found:
            end = start + len(each.mean)
            cov[start:end, start:end] = each.cov
            start = end
        return Moments(np.concatenate([each.mean for each in found]), cov)


_JOINS = ("concat", "cat", "concatenate")
_SUMS = ("add", "sub", "sum")
_PRODUCTS = ("mul", "div", "multiply", "divide")


def through(function: Function, x: Moments) -> Moments:
    """Moments of a function of each number, where the numbers are Gaussian."""
    deviation = np.sqrt(np.maximum(np.diag(x.cov), 0))
    values = function(x.mean[:, None] + deviation[:, None] * _NODES)
    mean = values @ _DENSITY
    variance = np.maximum((values * values) @ _DENSITY - mean * mean, 0)
    first, second = values @ (_DENSITY * _NODES), values @ (_DENSITY * (_NODES**2 - 1))
    rest = np.sqrt(np.maximum(variance - first**2 - second**2 / 2, 0))
    safe = np.where(deviation > 0, deviation, 1)
    likeness = np.clip(x.cov / np.outer(safe, safe), -1, 1)
    cov = likeness * np.outer(first, first) + likeness**2 * np.outer(second, second) / 2
    return replace(x, mean=mean, cov=cov + likeness**3 * np.outer(rest, rest))


def _white(size: int) -> Moments:
    if size > MOST:
        raise Blocked("an axis of great size")
    return Moments(np.zeros(size), np.eye(size))


def _within(moments: Moments, start: int, size: int) -> Moments:
    mean, cov = np.zeros(size), np.zeros((size, size))
    end = start + len(moments.mean)
    mean[start:end], cov[start:end, start:end] = moments.mean, moments.cov
    return Moments(mean, cov)
