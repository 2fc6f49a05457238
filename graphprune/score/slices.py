"""The slices of parameters that groups have a part in, and one number for each position from numbers of elements."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphprune.axes import Axis
from graphprune.score.base import Scores
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction
from graphprune.structure import Structure

__all__ = ["GRADIENTS", "SliceOf", "Slices", "along"]

GRADIENTS = frozenset({"gradients"})
"""What criteria on labels and gradients need."""


class SliceOf(NamedTuple):
    """A dimension of a parameter, and its axis."""

    name: str
    dim: int
    axis: Axis


class Slices:
    """All slices of a structure's groups in parameters called one of ``names``."""

    def __init__(self, structure: Structure, names: Container[str]) -> None:
        self.positions = Positions(structure)
        self.each = [
            SliceOf(parameter.name, dim, axis)
            for parameter in structure.counted
            if parameter.name in names
            for dim, axis in enumerate(structure.tensors[parameter.name] or ())
            if len(self.positions.places(axis).number)
        ]
        self.names = frozenset(place.name for place in self.each)

    def reduced(self, numbers: Callable[[SliceOf], Numbers], reduction: Reduction) -> Numbers:
        """For each position one number from what ``numbers`` says of its slices, one number an index."""
        found = Reduced(self.positions, reduction)
        for place in self.each:
            found.add(place.axis, numbers(place))
        return found.result()

    def sums(self, elements: Mapping[str, Any], reduction: Reduction) -> Numbers:
        """Sums of ``elements`` (a tensor for each parameter, of its shape) over each slice, reduced by position."""
        return self.reduced(lambda place: along(elements[place.name], place.dim), reduction)

    def scores(self, elements: Mapping[str, Any], reduction: Reduction) -> Scores:
        """The same by group."""
        return self.positions.split(self.sums(elements, reduction))


def along(tensor: Any, dim: int) -> Numbers:
    """Sums of a PyTorch tensor over all dimensions but one."""
    others = [other for other in range(tensor.ndim) if other != dim]
    total = tensor.double().sum(others) if others else tensor.double()
    return np.asarray(total.detach().cpu().numpy(), np.float64)
