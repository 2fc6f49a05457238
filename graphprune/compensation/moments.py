"""Second moments of what enters and what is missing at a layer, and the weight that makes the most of them.

With ``x`` the rows that enter a slim layer (features of the kept inputs), ``t`` the dense layer's results for them and
``e = t - (W x + b)`` what is missing, the change of the weight that minimises ``E|e - D x - d|^2 + ridge |D|^2`` is

    D = Cov(e, x) (Cov(x, x) + ridge I)^-1,    d = E[e] - D E[x],

least squares towards the cut weight rather than towards zero: directions that the data do not show keep what they had.
Where ``x`` are the dense activations this is the optimal brain surgeon's update (Hassibi and Stork 1993), for layers
that of He et al. 2017 (https://arxiv.org/abs/1707.06168); with the slim ones it also takes back errors of the layers
before. Rows are taken relative to an ``offset``, about their mean, so that products in single precision lose nothing;
sums are float64. The ridge is a multiple of the mean variance of the features; which one is decided on data
that the sums did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RIDGES", "Change", "Moments", "bias_only", "least_squares", "loss"]

Array = npt.NDArray[Any]

RIDGES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Multiples of the mean variance of the features that are tried."""


@dataclass
class Moments:
    """Sums over rows of ``z z'`` and ``e z'`` with ``z = (x - offset, 1)``; the offset is ``(groups, features)``."""

    groups: int
    features: int
    outputs: int
    offset: Array
    rows: int = 0
    missing: float = 0.0
    wanted: float = 0.0
    inputs: Array = field(init=False)
    cross: Array = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = np.zeros((self.groups, self.features + 1, self.features + 1))
        self.cross = np.zeros((self.groups, self.outputs, self.features + 1))

    def add(self, x: Array, e: Array, t: Array) -> None:
        """Take in rows ``(n, groups, features)``, what is missing ``(n, groups, outputs)``, and the wanted results."""
        moved = (x - self.offset).astype(np.float32)
        wide = np.concatenate([moved, np.ones((*x.shape[:2], 1), np.float32)], 2).transpose(1, 2, 0)
        error = e.astype(np.float32).transpose(1, 2, 0)
        across = np.ascontiguousarray(wide).transpose(0, 2, 1)
        self.inputs += wide @ across
        self.cross += error @ across
        self.rows += len(x)
        self.missing += float(np.square(error, dtype=np.float64).sum())
        self.wanted += float(np.square(t - t.mean(0), dtype=np.float64).sum())

    def plus(self, other: Moments) -> Moments:
        """The sums over both."""
        joined = Moments(self.groups, self.features, self.outputs, self.offset, self.rows + other.rows)
        joined.missing, joined.wanted = self.missing + other.missing, self.wanted + other.wanted
        joined.inputs, joined.cross = self.inputs + other.inputs, self.cross + other.cross
        return joined


@dataclass(frozen=True)
class Change:
    """What is added to a layer's matrix, ``(groups, outputs, features)``, and to each call's bias.

    Biases are those for rows relative to the offset; :meth:`absolute` gives them for the rows themselves.
    """

    matrix: Array
    biases: tuple[Array, ...]

    def absolute(self, moments: Sequence[Moments]) -> tuple[Array, ...]:
        """What is added to the biases of a layer that reads rows as they are."""
        return tuple(
            bias - np.einsum("gof,gf->go", self.matrix, own.offset)
            for bias, own in zip(self.biases, moments, strict=True)
        )


def least_squares(moments: Sequence[Moments], ridge: float, bias: bool) -> Change:
    """The best change of one weight for all calls that use it, each with a bias of its own if it has one."""
    covariance, cross, means, missing = _centred(moments, bias)
    features = covariance.shape[-1]
    scale = np.trace(covariance, axis1=1, axis2=2) / max(features, 1)
    loaded = covariance + (ridge * scale + 1e-12 * (scale.max(initial=0.0) or 1.0))[:, None, None] * np.eye(features)
    matrix = np.linalg.solve(loaded, cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    biases = [e - np.einsum("gof,gf->go", matrix, x) for e, x in zip(missing, means, strict=True)]
    return Change(matrix, tuple(biases) if bias else ())


def bias_only(moments: Sequence[Moments]) -> Change:
    """The mean of what is missing, absorbed by the bias (FLAP, An et al. 2023, https://arxiv.org/abs/2312.11983)."""
    _, cross, _, missing = _centred(moments, True)
    return Change(np.zeros_like(cross), tuple(missing))


def loss(moments: Sequence[Moments], change: Change | None) -> float:
    """The sum of squares that is missing after a change, None for none."""
    total = 0.0
    for number, own in enumerate(moments):
        total += own.missing
        if change is not None:
            constant = change.biases[number] if change.biases else np.zeros(change.matrix.shape[:2])
            wide = np.concatenate([change.matrix, constant[..., None]], 2)
            total += float((-2 * wide * own.cross + (wide @ own.inputs) * wide).sum())
    return max(total, 0.0)


def _centred(moments: Sequence[Moments], bias: bool) -> tuple[Array, Array, list[Array], list[Array]]:
    """Covariances of inputs and of what is missing with them, summed over calls, and the means of each call."""
    covariance: Array | float = 0.0
    cross: Array | float = 0.0
    rows = sum(own.rows for own in moments)
    means: list[Array] = []
    missing: list[Array] = []
    for own in moments:
        count = max(own.rows, 1)
        mean, error = own.inputs[:, -1, :-1] / count, own.cross[:, :, -1] / count
        means.append(mean)
        missing.append(error)
        inner, outer = own.inputs[:, :-1, :-1], own.cross[:, :, :-1]
        if bias:
            inner = inner - own.rows * mean[:, :, None] * mean[:, None, :]
            outer = outer - own.rows * error[:, :, None] * mean[:, None, :]
        covariance, cross = covariance + inner / max(rows, 1), cross + outer / max(rows, 1)
    return np.asarray(covariance), np.asarray(cross), means, missing
