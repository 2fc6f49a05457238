"""Amounts that flow through a program along its axes, forwards and backwards: a linear network without activations.

A layer adds ``|W| x`` to the amounts of the axis that it makes, a depthwise convolution and a normalisation scale the
amounts of theirs, and everything else passes them on: kernels are summed, since each channel holds one amount. Amounts
are kept by the leaves that an axis is made from, so a residual stream is what its writers have added so far, and what
reshapes and concatenations do needs no rule: it is in the axes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, AxisSpace, Concat, Leaf
from graphprune.score.positions import Numbers

__all__ = ["Amounts"]

Key = tuple[Leaf, ...]
Atom = tuple[Key, npt.NDArray[np.intp]]
"""Leaves whose positions, multiplied out, stand in an axis at these places (one dimension for each leaf)."""

_LARGE = 1e100
_LIMIT = 600.0  # of an exponent


class Amounts:
    """An amount for each position of axes, times ``exp(scale)``; what nobody has added to has the amount ``unit``."""

    def __init__(self, space: AxisSpace, unit: float = 1.0) -> None:
        self._space, self._unit = space, unit
        self._held: dict[Key, Numbers] = {}
        self._holders: dict[Leaf, list[Key]] = {}
        self._atoms: dict[int, tuple[Axis, list[Atom]]] = {}
        self.scale = 0.0

    @property
    def held(self) -> list[Key]:
        """The keys that have been added to."""
        return list(self._held)

    def total(self, keys: set[Key]) -> float:
        """The sum over these keys, without the scale."""
        return math.fsum(float(self._held[key].sum()) for key in keys)

    def fill(self, key: Key, value: float) -> None:
        """Hold one amount all over a key."""
        self._hold(key, np.full([int(leaf.size) for leaf in key], value))  # type: ignore[arg-type]

    def sources(self, axis: Axis) -> set[Key]:
        """The keys that amounts of an axis are read from."""
        return {key for leaves, _ in self._split(axis) for key in self._related(leaves)}

    def read(self, axis: Axis, keys: set[Key] | None = None) -> Numbers:
        """One amount for each position of an axis; only from ``keys`` if they are given."""
        values = np.zeros(int(axis.size))  # type: ignore[arg-type]
        for leaves, index in self._split(axis):
            found = [_aligned(self._held[key], key, leaves, mean=True) for key in self._related(leaves, keys)]
            values[index] = sum(found) if found else self._unit * math.exp(min(-self.scale, _LIMIT))
        return values

    def add(self, axis: Axis, values: Numbers) -> None:
        """Add to the positions of an axis."""
        for leaves, index in self._split(axis):
            old = self._held.get(leaves)
            self._hold(leaves, values[index] if old is None else old + values[index])
        self._rescale({leaves for leaves, _ in self._split(axis)})

    def add_where_read(self, axis: Axis, values: Numbers, keys: set[Key]) -> None:
        """The adjoint of :meth:`read`, where it read from ``keys``."""
        for leaves, index in self._split(axis):
            for key in self._related(leaves, keys):
                averaged = [int(leaf.size) for leaf in key if leaf not in leaves]  # type: ignore[arg-type]
                amount = _aligned(values[index], leaves, key, mean=False) / math.prod(averaged)
                self._held[key] = self._held[key] + amount
        self._rescale(keys)

    def multiply(self, axis: Axis, by: Numbers, keys: set[Key]) -> None:
        """Scale the positions of an axis in ``keys``, the sources of the axis."""
        for leaves, index in self._split(axis):
            for key in self._related(leaves, keys):
                self._held[key] = self._held[key] * _aligned(by[index], leaves, key, mean=True)
        self._rescale(keys)

    def _hold(self, key: Key, values: Numbers) -> None:
        if key not in self._held:
            for leaf in dict.fromkeys(key):
                self._holders.setdefault(leaf, []).append(key)
        self._held[key] = values

    def _related(self, leaves: Key, keys: set[Key] | None = None) -> list[Key]:
        """The keys that hold something of ``leaves``: themselves, otherwise those of more or of fewer leaves."""
        if leaves in (self._held if keys is None else keys):
            return [leaves]
        own = set(leaves)
        near = dict.fromkeys(key for leaf in leaves for key in self._holders.get(leaf, ()))
        return [key for key in near if (own.issubset(key) or own.issuperset(key)) and (keys is None or key in keys)]

    def _rescale(self, touched: set[Key]) -> None:
        """Keep numbers in the middle of what floating point holds."""
        largest = max((float(self._held[key].max(initial=0)) for key in touched), default=0.0)
        if 0 < largest < 1 / _LARGE:
            largest = max(float(values.max(initial=0)) for values in self._held.values())
        if largest > _LARGE or 0 < largest < 1 / _LARGE:
            self.scale += math.log(largest)
            self._held = {key: values / largest for key, values in self._held.items()}

    def _split(self, axis: Axis) -> list[Atom]:
        axis = self._space.find(axis)
        if id(axis) not in self._atoms:
            for node in self._space.postorder(axis, self._atoms):
                self._atoms[id(node)] = (node, self._divided(node))
        return self._atoms[id(axis)][1]

    def _divided(self, node: Axis) -> list[Atom]:
        if isinstance(node, Leaf):
            return [((node,), np.arange(int(node.size)))]  # type: ignore[arg-type]
        parts = self._space.parts(node)
        if isinstance(node, Concat):
            start, found = 0, []
            for part in parts:
                found += [(leaves, index + start) for leaves, index in self._atoms[id(part)][1]]
                start += int(part.size)  # type: ignore[arg-type]
            return found
        whole: list[Atom] = [((), np.zeros((), np.intp))]
        for part in parts:
            width = int(part.size)  # type: ignore[arg-type]
            whole = [
                (outer + inner, np.add.outer(before * width, after))
                for outer, before in whole
                for inner, after in self._atoms[id(part)][1]
            ]
        return whole


def _aligned(values: Numbers, source: Key, target: Key, *, mean: bool) -> Numbers:
    """Values over the leaves ``source``, over ``target``: repeated along new leaves, averaged or summed over others."""
    if source == target:
        return values
    gone = tuple(dim for dim, leaf in enumerate(source) if leaf not in target)
    values = values.mean(gone) if mean else values.sum(gone)
    stay = [leaf for leaf in source if leaf in target]
    order = sorted(range(len(stay)), key=lambda dim: target.index(stay[dim]))
    values = values.transpose(order)
    shape = [int(leaf.size) if leaf in stay else 1 for leaf in target]  # type: ignore[arg-type]
    return np.broadcast_to(values.reshape(shape), [int(leaf.size) for leaf in target])  # type: ignore[arg-type]
