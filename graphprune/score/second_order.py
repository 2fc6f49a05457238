"""Second order on what reads a position: the least-squares cost of doing without it.

For a layer ``y = W x`` with the covariance ``H = Cov(x, x) + ridge`` of its inputs, dropping the features S of a
position and choosing the rest of W anew costs

    s[k] = sum over outputs of W_S ((H^-1)_SS)^-1 W_S'

of the variance of y (optimal brain surgeon, Hassibi and Stork 1993; in blocks as in ZipLM, Kurtic et al. 2023,
https://arxiv.org/abs/2302.04089, and OBSPA, https://arxiv.org/abs/2403.18955). Positions go lowest cost first; after
each round H^-1 and W are those of what is left, so that of two copies the second is dear once the first is gone. The
score of a position is its cost in the round it goes, as a share of the variance of what the layer's result becomes
(of the residual stream where it is added to one), summed over all layers that read it. H is drawn towards its diagonal
by ``features / (features + rows / ROWS_EACH)``: among few rows, such as the pooled ones that a classifier reads, any
feature seems to follow from the others.

Needs calibration inputs, no labels. Layers that read nothing but the position itself (depthwise) have no say. Positions
that no layer reads (the width of queries and keys, what goes into quantised or recurrent operators) are judged by their
share of the energy of their activation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.layers import Layer, destinations, layers
from graphprune.score.base import Evidence, Scores, register
from graphprune.score.l2_activation import L2Activation
from graphprune.score.positions import Numbers, Positions
from graphprune.structure import Structure

__all__ = ["SecondOrder"]

Array = npt.NDArray[Any]

MEMORY = 1 << 28
"""Bytes of covariances that are gathered in one pass over the inputs."""

TOGETHER = 12
"""Layers at most whose activations are looked at in one pass: one batch of them is in memory."""

ROUNDS = 48
"""In how many rounds the positions of a group go at most."""

MOST_FEATURES = 6144
"""Features above which only their variances are gathered: the covariance would take more than 300 MB."""

LARGE = 2048
"""Features above which a covariance is inverted in single precision: drawn to its diagonal it is well conditioned."""

RIDGE = 1e-3
"""What is added to the covariance, as a multiple of the mean variance of the features."""

ROWS_EACH = 8
"""How many rows count as one independent one: neighbouring pixels and tokens resemble each other."""


@dataclass
class _Reader:
    """A layer that reads positions of groups: its covariance, its matrix, and the variance its cost is a share of."""

    layer: Layer
    matrix: Array
    mean: Array
    square: Array
    rows: int = 0
    variance: float = 0.0
    offset: Array | None = None  # about the mean of the rows: products in single precision lose nothing then

    def covariance(self) -> Array:
        """``(groups, features, features)``, drawn towards the diagonal; of many features the diagonal alone."""
        mean = self.mean / self.rows
        if self.square.ndim == 2:
            return np.asarray(self.square / self.rows - np.square(mean))
        found = self.square / self.rows - mean[:, :, None] * mean[:, None, :]
        features = found.shape[-1]
        drawn = features / (features + self.rows / ROWS_EACH)
        diagonal = np.einsum("gff->gf", found)
        own = diagonal.copy()
        found *= 1 - drawn
        diagonal[...] = own
        return np.asarray(found)


@dataclass(frozen=True, slots=True)
class SecondOrder:
    """The cost of each position to the layers that read it, ``rows`` rows of each layer looked at."""

    rows: int = 16384
    seed: int = 0
    needs: frozenset[str] = frozenset({"calibration"})

    @property
    def name(self) -> str:
        """``obs``."""
        return "obs"

    def score(self, evidence: Evidence) -> Scores:
        """Gather covariances in as few passes as memory allows, then let positions go."""
        structure = evidence.structure
        positions = Positions(structure)
        scores = np.zeros(positions.total)
        readers = self._readers(evidence, structure, positions)
        by_leaf: defaultdict[Leaf, list[tuple[_Reader, Array]]] = defaultdict(list)
        for reader in readers:
            for leaf, features in _features(reader.layer, structure, positions):
                by_leaf[leaf].append((reader, features))
        for leaf, own in by_leaf.items():
            scores[positions.range(leaf)] = _costs(own, int(leaf.size))  # type: ignore[arg-type]
        unread = [leaf for leaf in positions.first if leaf not in by_leaf]
        if unread:
            energies = L2Activation().score(evidence)
            for leaf in unread:
                energy = np.square(energies[leaf])
                scores[positions.range(leaf)] = energy / max(float(energy.sum()), 1e-30)
        return positions.split(scores)

    def _readers(self, evidence: Evidence, structure: Structure, positions: Positions) -> list[_Reader]:
        found = [
            layer
            for layer in layers(structure)
            if {layer.x, layer.y} <= evidence.calibration.observable
            and any(True for _ in _features(layer, structure, positions))
        ]
        ends = destinations(structure)
        done: list[_Reader] = []
        for some in _in_passes(found, evidence):
            self._gather(some, evidence, ends)
            for reader in some:
                reader.square = reader.square.astype(np.float32)  # from here on it is only looked at
            done.extend(some)
        return done

    def _gather(self, readers: Sequence[_Reader], evidence: Evidence, ends: Mapping[str, str]) -> None:
        calibration = evidence.calibration
        generator = np.random.default_rng(self.seed)
        names = [name for r in readers for name in (r.layer.x, r.layer.y, ends.get(r.layer.y, r.layer.y))]
        spread: dict[str, list[Array]] = {}
        for values in calibration.observe(names):
            for reader in readers:
                layer, form = reader.layer, reader.layer.form
                x, y = values[layer.x], values[layer.y]
                count = form.count(y)
                some = min(count, max(1, self.rows // len(calibration)))
                index = np.sort(generator.choice(count, some, replace=False)) if some < count else np.arange(count)
                rows = form.rows(x, y, index)
                if not reader.rows:
                    reader.offset = rows.mean(0)
                moved = np.ascontiguousarray((rows - reader.offset).transpose(1, 2, 0))
                wide = reader.square.ndim == 2
                reader.square += np.square(moved).sum(2) if wide else moved @ moved.transpose(0, 2, 1)
                reader.mean += moved.sum(2, dtype=np.float64)
                reader.rows += some
                end = ends.get(layer.y, layer.y)
                flat = np.moveaxis(values[end], layer.y_dim, -1).reshape(-1, values[end].shape[layer.y_dim])
                spread.setdefault(layer.node, []).append(
                    np.stack([flat.mean(0, dtype=np.float64), np.square(flat).mean(0, dtype=np.float64)])
                )
        for reader in readers:
            mean, square = np.mean(spread[reader.layer.node], 0)
            reader.variance = float((square - np.square(mean)).sum())


def _in_passes(found: Sequence[Layer], evidence: Evidence) -> Iterator[list[_Reader]]:
    """Layers in lots whose covariances fit into memory."""
    lot: list[_Reader] = []
    size = 0
    for layer in found:
        matrix = layer.form.matrix(evidence.array(layer.weight)).astype(np.float64)
        groups, _, features = matrix.shape
        wide = features > MOST_FEATURES
        own = 8 * groups * features * (1 if wide else features)
        if lot and (size + own > MEMORY or len(lot) == TOGETHER):
            yield lot
            lot, size = [], 0
        square = np.zeros((groups, features) if wide else (groups, features, features))
        lot.append(_Reader(layer, matrix.astype(np.float32), np.zeros((groups, features)), square))
        size += own
    if lot:
        yield lot


def _features(layer: Layer, structure: Structure, positions: Positions) -> Iterator[tuple[Leaf, Array]]:
    """For each group in a layer's inputs the features of each of its positions, ``(group size, features each)``.

    Features are numbered through all groups of a convolution.
    """
    own = positions.places(layer.inputs)
    if not len(own.number):
        return
    made = positions.places(layer.outputs)
    for leaf in structure.leaves(layer.inputs):
        if leaf not in positions.first:
            continue
        numbers = positions.range(leaf)
        here = (own.number >= numbers.start) & (own.number < numbers.stop)
        if layer.form.groups > 1 and np.any((made.number >= numbers.start) & (made.number < numbers.stop)):
            continue  # what it reads it gives: it goes as a whole
        index, number = own.index[here], own.number[here] - numbers.start
        count = int(leaf.size)  # type: ignore[arg-type]
        if not len(index) or len(index) % count:
            continue
        order = np.lexsort((index, number))
        each = index[order].reshape(count, -1)
        taps = layer.form.taps
        yield leaf, (each[:, :, None] * taps + np.arange(taps)).reshape(count, -1)


def _costs(readers: Sequence[tuple[_Reader, Array]], count: int) -> Numbers:
    """The cost of each position in the round in which it goes."""
    states = [(_Apart if reader.square.ndim == 2 else _State)(reader, features) for reader, features in readers]
    left = np.arange(count)
    scores = np.zeros(count)
    least = 0.0
    step = max(1, -(-count // ROUNDS))
    while len(left):
        costs = sum((state.costs(left) for state in states), np.zeros(len(left)))
        order = np.argsort(costs, kind="stable")[:step]
        gone = left[order]
        own = np.maximum.accumulate(np.maximum(costs[order], least))
        scores[gone] = own
        least = float(own[-1])
        left = np.delete(left, order)
        if len(left):
            for state in states:
                state.drop(gone)
    return scores


class _Apart:
    """A layer of so many features that they are taken as if they had nothing in common: ``sum of Var(x) W^2``."""

    def __init__(self, reader: _Reader, features: Array) -> None:
        each = (reader.covariance()[:, None] * np.square(reader.matrix)).sum(1).reshape(-1)
        self.all: Numbers = each[features].sum(1) / max(reader.variance, 1e-30)

    def costs(self, left: Array) -> Numbers:
        """For each of the positions ``left`` the share of variance that goes with it."""
        return self.all[left]

    def drop(self, gone: Array) -> None:
        """Nothing else changes."""


class _State:
    """What is left of one layer: the inverse of its covariance and its matrix, groups of a convolution side by side."""

    def __init__(self, reader: _Reader, features: Array) -> None:
        covariance = reader.covariance()
        size = covariance.shape[-1]
        scale = np.trace(covariance, axis1=1, axis2=2) / max(size, 1)
        floor = 1e-9 * float(scale.max(initial=0.0)) or 1e-12
        np.einsum("gff->gf", covariance)[...] += (RIDGE * scale + floor)[:, None]
        precision = np.float64 if size <= LARGE else np.float32
        self.inverse = np.linalg.inv(covariance.astype(precision))
        self.matrix = reader.matrix.astype(precision)
        self.share = 1.0 / max(reader.variance, 1e-30)
        self.group, self.features = features[:, :] // size, features % size
        self.count = len(self.inverse)

    def costs(self, left: Array) -> Numbers:
        """For each of the positions ``left`` the share of variance that is lost without it."""
        total = np.zeros(len(left))
        for group in range(self.count):
            inside = self.group[left] == group
            if not inside.any():
                continue
            if inside.all():
                total += self._group_costs(group, self.features[left])
            else:
                rows = np.flatnonzero(inside.all(1))
                total[rows] += self._group_costs(group, self.features[left[rows]])
        return total * self.share

    def _group_costs(self, group: int, own: Array) -> Numbers:
        inverse, matrix = self.inverse[group], self.matrix[group]
        blocks = inverse[own[:, :, None], own[:, None, :]]
        weights = matrix[:, own].transpose(1, 2, 0)  # (positions, features, outputs)
        solved = np.linalg.solve(blocks, weights)
        costs: Numbers = np.maximum((solved * weights).sum((1, 2)), 0.0)
        return costs

    def drop(self, gone: Array) -> None:
        """Take positions out and let the rest make up for them."""
        for group in range(self.count):
            own = self.features[gone][self.group[gone] == group].reshape(-1)
            if not len(own):
                continue
            inverse, matrix = self.inverse[group], self.matrix[group]
            across = inverse[own]
            solved = np.linalg.solve(across[:, own], across)
            matrix -= matrix[:, own] @ solved
            inverse -= across.T @ solved
            # what is gone stays apart, so that numbers keep their meaning
            inverse[own], inverse[:, own] = 0.0, 0.0
            inverse[own, own] = 1.0
            matrix[:, own] = 0.0


register("obs", lambda seed: SecondOrder(seed=seed))
