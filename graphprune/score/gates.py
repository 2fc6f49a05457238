"""Gates: a factor of 1 for each position at every place where a layer reads it, and the loss differentiated by it.

``dL/dm[k] = sum over space of A[k] dL/dA[k]``, where A is what enters the layer and the gradient is that of what passes
through the layer alone, so that a tensor that several layers read counts in each by what it does there. Positions that
no layer reads, the width of queries and keys for instance, have their gates where they are made; those that no layer
makes either have them at the last result of an operator that holds them, and those of no activation at all (inside a
recurrent layer) have the sum of ``W[k] dL/dW[k]`` over their slices instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Product
from graphprune.layers import layers
from graphprune.score.positions import Indices, Numbers, Places, Positions
from graphprune.score.slices import Slices, along
from graphprune.structure import Structure

if TYPE_CHECKING:
    from graphprune.calibration.gradients import Gradients

__all__ = ["Gates", "Slopes"]


@dataclass(frozen=True, slots=True)
class _Gate:
    """Gates of the positions at ``places`` along dimension ``dim`` of a tensor, as one reader (or all) reads it."""

    tap: tuple[str, str]
    dim: int
    places: Places


class Slopes(NamedTuple):
    """The derivatives ``dL_n/dm[k]`` at one place: for distinct positions ``numbers``, ``(samples, positions)``."""

    numbers: Indices
    values: Numbers


class Gates:
    """The gates of all positions of a structure."""

    def __init__(self, structure: Structure, gradients: Gradients) -> None:
        self.structure, self.positions, self._gradients = structure, Positions(structure), gradients
        self._seen = np.zeros(self.positions.total, np.bool_)
        first = next((structure.tensors.get(name) for name in gradients.inputs), None)
        axis = structure.space.find(first[0]) if first else None
        self._sample_axis = None if axis is None or axis.size == 1 else axis
        self._gates = [*self._read(), *self._made(), *self._held()]

    def batches(self) -> Iterator[list[Slopes]]:
        """For each batch what the gates of each place say.

        Where samples cannot be told apart in a tensor, what all of them say together is divided among them.
        """
        taps = list(dict.fromkeys(gate.tap for gate in self._gates))
        rest = self._weights()
        for taken in self._gradients.activations(taps):
            count = max((self._samples(tap[0], value) for tap, (value, _) in taken.items()), default=1)
            found: list[Slopes] = []
            for gate in self._gates:
                if gate.tap in taken:
                    value, grad = taken[gate.tap]
                    found.append(self._slopes(gate.places, self._by_sample(gate, value * grad, count)))
            if rest is not None:
                numbers = np.flatnonzero(~self._seen)
                found.append(Slopes(numbers, np.repeat(next(rest)[None, numbers] / count, count, 0)))
            yield found

    def _slopes(self, places: Places, values: Numbers) -> Slopes:
        """Numbers (samples, indices of a dimension) as numbers of positions."""
        repeats = places.repeats()
        if repeats is None:
            return Slopes(places.number, values[:, places.index])
        numbers = np.flatnonzero(repeats)
        return Slopes(numbers, np.stack([places.gather(own, self.positions.total)[numbers] for own in values]))

    # -- where gates stand ----------------------------------------------------------------------------------------

    def _read(self) -> Iterator[_Gate]:
        for layer in layers(self.structure):
            gate = self._gate((layer.x, layer.node), layer.x_dim, layer.inputs)
            if gate is not None:
                yield gate

    def _made(self) -> list[_Gate]:
        """At the results of layers, of what no layer reads."""
        missing = ~self._seen
        found = (self._gate((layer.y, ""), layer.y_dim, layer.outputs, missing) for layer in layers(self.structure))
        return [gate for gate in found if gate is not None]

    def _held(self) -> Iterator[_Gate]:
        """At the last results of operators that hold what no layer reads or makes."""
        for call in reversed(self.structure.calls):
            for name in call.results:
                for dim, axis in enumerate(self.structure.tensors.get(name) or ()):
                    gate = self._gate((name, ""), dim, axis, ~self._seen) if not self._seen.all() else None
                    if gate is not None:
                        yield gate

    def _gate(
        self, tap: tuple[str, str], dim: int, axis: Axis, only: npt.NDArray[np.bool_] | None = None
    ) -> _Gate | None:
        if not isinstance(axis.size, int) or tap[0] not in self._gradients.observable:
            return None
        places = self.positions.places(axis)
        if only is not None:
            here = only[places.number]
            places = Places(places.index[here], places.number[here])
        self._seen[places.number] = True
        return _Gate(tap, dim, places) if len(places.number) else None

    def _weights(self) -> Iterator[Numbers] | None:
        """For positions that are in no activation the sums of ``W[k] dL_n/dW[k]`` over a batch; None without any."""
        return self._weight_sums() if not self._seen.all() else None

    def _weight_sums(self) -> Iterator[Numbers]:
        weights = self._gradients.parameters
        slices = Slices(self.structure, weights)
        for batch in self._gradients.weights():
            products = {name: weights[name] * batch[name] for name in slices.names}
            yield slices.sums(products, "sum")

    # -- samples --------------------------------------------------------------------------------------------------

    def _samples(self, name: str, value: Any) -> int:
        """How many samples there are in a tensor of the program, as far as its axes tell."""
        place = self._sample_dim(name)
        return 1 if place is None else int(value.shape[place[0]]) // place[1]

    def _by_sample(self, gate: _Gate, product: Any, count: int) -> Numbers:
        """Sums of a tensor over everything but samples and the dimension of a gate: (samples, indices)."""
        place = self._sample_dim(gate.tap[0])
        if place is None or place[0] == gate.dim or int(product.shape[place[0]]) != count * place[1]:
            return np.repeat(along(product, gate.dim)[None] / count, count, 0)
        moved = product.movedim((place[0], gate.dim), (0, -1))
        parts = moved.reshape(count, -1, moved.shape[-1]).double().sum(1)
        return np.asarray(parts.cpu().numpy(), np.float64)

    def _sample_dim(self, name: str) -> tuple[int, int] | None:
        """The dimension of a tensor whose outermost part counts samples, and how many indices each of them has."""
        space = self.structure.space
        for dim, axis in enumerate(self.structure.tensors.get(name) or ()):
            own = space.find(axis)
            if own is self._sample_axis:
                return dim, 1
            parts = space.parts(own)
            if isinstance(own, Product) and space.find(parts[0]) is self._sample_axis:
                rest = [part.size for part in parts[1:]]
                if all(isinstance(size, int) for size in rest):
                    return dim, math.prod(rest)  # type: ignore[arg-type]
        return None
