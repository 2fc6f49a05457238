"""Filters: the weights that make the positions of an axis, one row each.

The filter of a position is its row in the weight of the layer that makes it (of a convolution, over input positions and
kernel; of a table of vectors, its column). A convolution that scales each channel by itself makes no positions; it is
marked, since its rows say how strong a channel is but not what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis, Leaf
from graphprune.layers import layers
from graphprune.rules.call import Call
from graphprune.score.base import Evidence
from graphprune.score.positions import Indices, Positions
from graphprune.selection import occurrences
from graphprune.structure import Structure

__all__ = ["Filters", "Matrix", "filters", "places"]

Matrix = npt.NDArray[np.floating[Any]]

_DOUBLE = 1 << 20  # elements of a matrix up to which float64 costs no time worth saving


@dataclass(frozen=True, slots=True)
class Filters:
    """The rows of one weight, as many as ``axis`` has positions; ``inputs`` is the axis that they sum over.

    ``apart``: each row reads an input position of its own (a depthwise convolution). ``table``: of the inputs one at a
    time is read.
    """

    call: Call

    weight: str
    axis: Axis
    inputs: Axis
    matrix: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    """From the weight to ``(groups, outputs, features)``."""
    apart: bool = False
    table: bool = False

    def own(self, structure: Structure) -> tuple[Axis, Axis]:
        """The axes of inputs and outputs as the weight has them: one of them stands there once for all groups."""
        axes = structure.tensors[self.weight] or ()
        if int(self.call.attribute("group", 1)) == 1:
            return self.inputs, self.axis
        turned = "ranspose" in self.call.op or self.call.attribute("transposed", False)
        return (self.inputs, axes[1]) if turned else (axes[1], self.axis)

    def rows(self, evidence: Evidence) -> Matrix:
        """One row for each position of ``axis``: float64, of large weights float32."""
        weight = evidence.array(self.weight)
        matrix = self.matrix(weight.astype(np.float64 if weight.size <= _DOUBLE else np.float32))
        return matrix.reshape(matrix.shape[0] * matrix.shape[1], -1)

    def parts(self, evidence: Evidence, positions: Positions) -> Iterator[tuple[Indices, Indices, Matrix]]:
        """What is to be compared with one another: sets of filters.

        Each comes as rows of a matrix and the group positions ``number[k]`` that its rows ``row[k]`` are. Positions
        that occur once are one set, with the rows that nobody may remove; positions that occur often (heads, whose
        rows are as many as they are wide) are a set for each group, with all their rows side by side.
        """
        rows = self.rows(evidence)
        once: list[tuple[Indices, Indices]] = []
        whole = np.ones(len(rows), np.bool_)
        for leaf, index in places(evidence.structure, self.axis):
            number = positions.numbers(leaf) if leaf in positions.first else None
            if index.shape[1] == 1:
                if number is not None:
                    once.append((index[:, 0], number))
            elif number is not None:
                whole[index] = False
                yield np.arange(len(index)), number, rows[index].reshape(len(index), -1)
        if once:
            single = np.concatenate([index for index, _ in once])
            whole[single] = True
            kept = np.flatnonzero(whole)
            row = np.searchsorted(kept, single)
            yield row, np.concatenate([number for _, number in once]), rows[kept]


def filters(structure: Structure) -> list[Filters]:
    """All filters of a program in reading order."""
    found = {id(layer.call): layer for layer in layers(structure)}
    result: list[Filters] = []
    for call in structure.calls:
        layer = found.get(id(call))
        if layer is not None:
            inputs, outputs = int(layer.inputs.size), int(layer.outputs.size)  # type: ignore[arg-type]
            apart = 1 < layer.form.groups == inputs == outputs
            result.append(Filters(call, layer.weight, layer.outputs, layer.inputs, layer.form.matrix, apart))
        elif (table := _table(call, structure)) is not None:
            result.append(table)
    return result


def _table(call: Call, structure: Structure) -> Filters | None:
    """A table of vectors that are looked up by number."""
    lookup = call.op == "aten.embedding" or (call.op == "onnx.Gather" and call.attribute("axis", 0) == 0)
    operand = call.operand(0) if lookup else None
    if operand is None or operand.name not in structure.parameters or not structure.parameters[operand.name].counts:
        return None
    axes = operand.axes or ()
    if len(axes) != 2 or not all(isinstance(axis.size, int) for axis in axes):
        return None
    return Filters(call, operand.name, axes[1], axes[0], lambda weight: weight.T[None], table=True)


def places(structure: Structure, axis: Axis) -> Iterator[tuple[Leaf, Indices]]:
    """For each leaf of an axis, where its positions stand: an array ``(positions, times that each occurs)``."""
    found: dict[Leaf, list[Indices]] = {}
    for occurrence in occurrences(structure.space, axis):
        size = int(occurrence.leaf.size)  # type: ignore[arg-type]
        order = np.argsort(occurrence.position, kind="stable")
        found.setdefault(occurrence.leaf, []).append(occurrence.index[order].reshape(size, -1))
    for leaf, index in found.items():
        yield leaf, np.concatenate(index, 1)
