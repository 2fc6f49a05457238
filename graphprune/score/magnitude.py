"""Magnitude: a position matters as much as the weights that go with it.

``s[k] = reduce over slices W of the group of sum |W[k]|^p``, where the slices of a position are its rows in the weights
that produce it and its columns in those that read it (Li et al. 2017, https://arxiv.org/abs/1608.08710; group-wise as
in DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900). L2 is the root of that.

Only weights of two or more dimensions count: scales and biases of normalisations, and biases, are of another order of
magnitude and say little where a statistic rescales them. A group that has nothing else is scored by those.
Quantised weights count as the numbers they stand for; their scales do not count a second time.
The default reduction is the mean, so that parts of one axis that feed different numbers of layers stay comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from graphprune.axes import Axis
from graphprune.score.base import Evidence, Scores, Weights, register
from graphprune.score.dequantize import Dequantized
from graphprune.score.positions import Numbers, Positions
from graphprune.structure import Structure

__all__ = ["Magnitude", "Reduction"]

Reduction = Literal["mean", "sum", "max"]


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Norm ``p`` (1 or 2) of the weights that stand or fall with a position, one number from all slices."""

    p: int = 1
    reduction: Reduction = "mean"
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """``l1`` or ``l2``."""
        return f"l{self.p}"

    def score(self, evidence: Evidence) -> Scores:
        """Read each weight that a group has a part in once, in blocks."""
        positions = Positions(evidence.structure)
        matrices, vectors = _Reduced(positions, self.reduction), _Reduced(positions, self.reduction)
        weights = Dequantized(evidence.structure, evidence.weights)
        for name, sums in _sums(evidence.structure, weights, positions, self.p):
            axes = evidence.structure.tensors[name] or ()
            matrix = sum(axis.size != 1 for axis in axes) > 1 and name not in weights.helpers
            target = matrices if matrix else vectors
            for dim, values in sums.items():
                target.add(axes[dim], values)
        values = matrices.result()
        values = np.where(matrices.seen > 0, values, vectors.result())
        return positions.split(np.sqrt(values) if self.p == 2 else values)


class _Reduced:
    """Sums of slices, reduced position by position."""

    def __init__(self, positions: Positions, reduction: Reduction) -> None:
        self._positions, self._reduction = positions, reduction
        self._values = np.zeros(positions.total)
        self.seen = np.zeros(positions.total)

    def add(self, axis: Axis, values: Numbers) -> None:
        """Take in the sums along one dimension of one weight."""
        places = self._positions.places(axis)
        repeats = places.repeats()
        if repeats is None:
            numbers, own = places.number, values[places.index]
        else:
            numbers = np.flatnonzero(repeats)
            own = places.gather(values, self._positions.total)[numbers]
        self.seen[numbers] += 1
        if self._reduction == "max":
            self._values[numbers] = np.maximum(self._values[numbers], own)
        else:
            self._values[numbers] += own

    def result(self) -> Numbers:
        """One number for each position; 0 where nothing was seen."""
        return self._values / np.maximum(self.seen, 1) if self._reduction == "mean" else self._values


def _sums(structure: Structure, weights: Weights, positions: Positions, p: int) -> list[tuple[str, dict[int, Numbers]]]:
    """For each weight, and each of its dimensions that a group has a part in, sums of ``|w|^p`` over the others."""
    found: list[tuple[str, dict[int, Numbers]]] = []
    for parameter in structure.counted:
        name = parameter.name
        axes = enumerate(structure.tensors[name] or ())
        free = {dim: int(axis.size) for dim, axis in axes if len(positions.places(axis).number)}  # type: ignore[arg-type]
        if not free:
            continue
        sums = {dim: np.zeros(size) for dim, size in free.items()}
        for block in weights(name):
            _add_block(sums, block.prefix, block.start, _powers(block.values, p))
        found.append((name, sums))
    return found


def _powers(values: npt.NDArray[np.generic], p: int) -> npt.NDArray[np.floating]:
    wide = values.astype(np.float64 if values.dtype.itemsize >= 8 else np.float32)
    if p == 1:
        return np.abs(wide, out=wide)
    return np.multiply(wide, wide, out=wide)


def _add_block(sums: dict[int, Numbers], prefix: tuple[int, ...], start: int, powers: npt.NDArray[np.floating]) -> None:
    depth = len(prefix)
    for dim, total in sums.items():
        if dim < depth:
            total[prefix[dim]] += powers.sum(dtype=np.float64)
        elif dim == depth:
            total[start : start + len(powers)] += powers.reshape(len(powers), -1).sum(1, dtype=np.float64)
        else:
            others = tuple(axis for axis in range(powers.ndim) if axis != dim - depth)
            total += powers.sum(others, dtype=np.float64)


register("l1", lambda _: Magnitude(1))
register("l2", lambda _: Magnitude(2))
