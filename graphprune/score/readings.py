"""Where the positions of groups can be looked at while a program runs, and how what is seen becomes scores.

A *reading* is an activation with an axis that holds positions of groups: what the layers (:mod:`graphprune.layers`)
that sum over the axis read, so behind activation functions and normalisations. Layers that read one tensor share a
reading.

- A convolution with one input channel a group is no reading of channels that another layer reads too: it passes them
  on.
- Positions that no layer reads are looked at where another operator reads them, products of activations first: head
  widths of queries and keys, weights inside fused operators.
- A position that occurs several times in the axis (a head by its width, a channel by what a flatten makes of its map)
  has several *members* there: its activation is all of them together.
- What nothing shows (positions inside loops or branches) is scored by L2 magnitude instead.

A position that is seen in several readings gets the mean of what they say, unless another reduction is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Leaf
from graphprune.layers import Layer, layers
from graphprune.rules.call import Call
from graphprune.score.base import Evidence, Scores
from graphprune.score.dequantize import Dequantized
from graphprune.score.magnitude import Magnitude
from graphprune.score.pools import where_missing
from graphprune.score.positions import Indices, Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction

__all__ = ["CALIBRATION", "Activation", "Reading", "Readings", "averages", "column_norms", "layer_matrix", "spaced"]

Activation: TypeAlias = npt.NDArray[Any]

CALIBRATION = frozenset({"calibration"})
"""What criteria on calibration inputs need."""


@dataclass(frozen=True)
class Reading:
    """Dimension ``dim`` of an activation, whose axis holds positions of groups; ``layers`` sum over it.

    ``members`` says, for each group in the axis, which indices belong to each position: ``(positions, members)``.
    """

    tensor: str
    dim: int
    axis: Axis
    members: dict[Leaf, Indices]
    layers: tuple[Layer, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether every position occurs once."""
        return all(index.shape[1] == 1 for index in self.members.values())

    def view(self, values: Activation) -> Activation:
        """The values as ``(samples, indices of the axis, *everything else)``; one sample where the axis comes first."""
        if self.dim == 0:
            values, dim = values[None], 1
        else:
            dim = self.dim
        return np.moveaxis(values, dim, 1)

    def flat(self, values: Activation) -> Activation:
        """The values as ``(samples, indices of the axis, everything else)``."""
        viewed = self.view(values)
        return viewed.reshape(*viewed.shape[:2], -1)


class Readings:
    """All readings of a program, and the values that they show on the calibration inputs."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence, self.structure = evidence, evidence.structure
        self.calibration = evidence.calibration
        self.positions = Positions(self.structure)
        self.all = self._by_layers()
        seen = {leaf for reading in self.all for leaf in reading.members}
        self.all += self._by_calls({group.leaf for group in self.structure.groups} - seen)
        seen = {leaf for reading in self.all for leaf in reading.members}
        hidden = sum(group.leaf not in seen for group in self.structure.groups)
        if hidden:
            count = len(self.structure.groups)
            self.calibration.tell(f"{hidden} of {count} groups are inside loops or branches: scored by magnitude")

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.all)

    def values(self) -> Iterator[Iterator[tuple[Reading, Activation]]]:
        """For each batch, each reading with its values; the program runs once, one batch is in memory."""
        for batch in self.calibration.observe([reading.tensor for reading in self.all]):
            yield ((reading, batch[reading.tensor]) for reading in self.all)

    def reduced(self, reduction: Reduction) -> Reduced:
        """What takes in numbers of readings."""
        return Reduced(self.positions, reduction)

    def scores(self, reduced: Reduced, change: Callable[[Numbers], Numbers] = np.asarray) -> Scores:
        """Scores by group, after a last ``change``; by magnitude where not all positions of an axis were seen."""
        values = where_missing(self.positions, reduced.result(), reduced.seen, self._magnitudes)
        return self.positions.split(change(values))

    def _magnitudes(self) -> Numbers:
        return self.positions.join(Magnitude(2).score(self.evidence))

    def numbers(self, leaf: Leaf) -> Indices:
        """The numbers of a group's positions in ``reduced``."""
        return self.positions.numbers(leaf)

    # -- finding them ---------------------------------------------------------------------------------------------

    def _by_layers(self) -> list[Reading]:
        found: defaultdict[tuple[str, int], list[Layer]] = defaultdict(list)
        for layer in layers(self.structure):
            found[layer.x, layer.x_dim].append(layer)
        made: list[Reading] = []
        for (tensor, dim), own in found.items():
            reading = self._reading(tensor, dim, own[0].inputs, tuple(own))
            if reading is not None:
                made.append(reading)
        summed = {leaf for reading in made if not _passes(reading) for leaf in reading.members}
        return [reading for reading in made if not _passes(reading) or not summed.issuperset(reading.members)]

    def _by_calls(self, missing: set[Leaf]) -> list[Reading]:
        """A reading for each group of ``missing`` that any activation shows."""
        found: list[Reading] = []
        order = sorted(self.structure.calls, key=lambda call: not call.contractions)
        for call in order:
            if not missing:
                break
            for tensor, dim, axis in self._activations(call):
                if missing.isdisjoint(self.structure.leaves(axis)):
                    continue
                reading = self._reading(tensor, dim, axis, ())
                if reading is not None:
                    found.append(reading)
                    missing = missing.difference(reading.members)
        return found

    def _activations(self, call: Call) -> Iterator[tuple[str, int, Axis]]:
        for operand in call.operands:
            if operand is not None and not operand.constant and operand.name not in self.structure.parameters:
                yield from ((operand.name, dim, axis) for dim, axis in enumerate(operand.axes or ()))

    def _reading(self, tensor: str, dim: int, axis: Axis, own: tuple[Layer, ...]) -> Reading | None:
        if not isinstance(axis.size, int) or tensor not in self.calibration.observable:
            return None
        places = self.positions.places(axis)
        order = np.argsort(places.number, kind="stable")
        number, index = places.number[order], places.index[order]
        members: dict[Leaf, Indices] = {}
        for leaf in self.structure.leaves(axis):
            if leaf in self.positions.first:
                own_range = self.positions.range(leaf)
                low, high = np.searchsorted(number, [own_range.start, own_range.stop])
                members[leaf] = index[low:high].reshape(int(leaf.size), -1)  # type: ignore[arg-type]
        return Reading(tensor, dim, axis, members, own) if members else None


def _passes(reading: Reading) -> bool:
    """Whether all layers of a reading keep its channels apart."""
    return bool(reading.layers) and all(layer.form.groups == layer.inputs.size for layer in reading.layers)


# -- averages of a function of each activation -------------------------------------------------------------------------


def averages(
    readings: Readings, measure: Callable[[Activation], Activation], reduction: Reduction, *, norm: bool = False
) -> Scores:
    """The mean of ``measure`` over all activations of each position; one pass, sums in float64.

    With ``norm``, what several members of a position measure is added up and the root of that taken, before readings
    are reduced to one number.
    """
    sums = [np.zeros(int(reading.axis.size)) for reading in readings]  # type: ignore[arg-type]
    counts = [0] * len(sums)
    for batch in readings.values():
        for number, (reading, values) in enumerate(batch):
            flat = reading.flat(values)
            sums[number] += measure(flat).sum((0, 2), dtype=np.float64)
            counts[number] += flat.shape[0] * flat.shape[2]
    reduced = readings.reduced(reduction)
    for reading, total, count in zip(readings, sums, counts, strict=True):
        for leaf, index in reading.members.items():
            own = total[index] / max(count, 1)
            reduced.take(readings.numbers(leaf), np.sqrt(own.sum(1)) if norm else own.mean(1))
    return readings.scores(reduced)


# -- weights of the layers that read ----------------------------------------------------------------------------------


def column_norms(evidence: Evidence, layer: Layer) -> Numbers:
    """For each input position of a layer the squared norm of its weights, over all outputs and kernel positions."""
    matrix = layer_matrix(evidence, layer)
    squares = np.einsum("gof,gof->gf", matrix, matrix)
    norms: Numbers = squares.reshape(int(layer.inputs.size), -1).sum(1)  # type: ignore[arg-type]
    return norms


def layer_matrix(evidence: Evidence, layer: Layer) -> npt.NDArray[np.float64]:
    """The weight of a layer as ``(groups, outputs, features)``."""
    decoded = Evidence(evidence.structure, Dequantized(evidence.structure, evidence.weights))
    return np.asarray(layer.form.matrix(decoded.array(layer.weight)), np.float64)


def spaced(length: int, limit: int, batches: int) -> Indices:
    """Which of the ``length`` samples of one of so many batches are looked at so that ``limit`` come together.

    >>> spaced(8, 12, 3).tolist(), spaced(2, 100, 3).tolist()
    ([0, 2, 4, 6], [0, 1])
    """
    count = min(length, max(1, -(-limit // max(batches, 1))))
    return np.arange(count) * length // max(count, 1)
