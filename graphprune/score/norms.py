"""Norms of all slices of a position, one number for each, from one pass over the weights in blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from graphprune.score.base import Evidence, Weights
from graphprune.score.dequantize import Dequantized
from graphprune.score.positions import Numbers, Positions
from graphprune.score.reduction import Reduced, Reduction
from graphprune.structure import Structure

__all__ = ["norms"]


def norms(
    evidence: Evidence, positions: Positions, p: int, reduction: Reduction, also: Collection[str] = ()
) -> Numbers:
    """For each position the sums of ``|w|^p`` over each of its slices, reduced to one number.

    Only weights of two or more dimensions count, and those whose names are in ``also``: biases and scales of
    normalisations are of another order of magnitude. Positions that have nothing else are judged by those. Quantised
    weights count as the numbers they stand for; their scales do not count a second time.
    """
    structure = evidence.structure
    counting, others = Reduced(positions, reduction), Reduced(positions, reduction)
    weights = Dequantized(structure, evidence.weights)
    for name, sums in _sums(structure, weights, positions, p):
        axes = structure.tensors[name] or ()
        matrix = sum(axis.size != 1 for axis in axes) > 1 and name not in weights.helpers
        target = counting if matrix or name in also else others
        for dim, values in sums.items():
            target.add(axes[dim], values)
    return np.where(counting.seen, counting.result(), others.result())


def _sums(
    structure: Structure, weights: Weights, positions: Positions, p: int
) -> Iterator[tuple[str, dict[int, Numbers]]]:
    """For each weight, and each of its dimensions that a group has a part in, sums of ``|w|^p`` over the others."""
    for parameter in structure.counted:
        name = parameter.name
        axes = enumerate(structure.tensors[name] or ())
        free = {dim: int(axis.size) for dim, axis in axes if len(positions.places(axis).number)}  # type: ignore[arg-type]
        if not free:
            continue
        sums = {dim: np.zeros(size) for dim, size in free.items()}
        for block in weights(name):
            _add_block(sums, block.prefix, block.start, _powers(block.values, p))
        yield name, sums


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
