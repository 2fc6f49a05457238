"""The weight that makes the most of what enters a slim layer.

With ``x`` the rows that enter it (features of the kept inputs), ``t`` the dense layer's results for them and
``e = t - (W x + b)`` what is missing, the change of the weight that minimises ``E|e - D x - d|^2 + ridge |D|^2`` is

    D = Cov(e, x) (Cov(x, x) + ridge I)^-1,    d = E[e] - D E[x],

least squares towards the weight as it is rather than towards zero: directions that the data do not show keep what they
had. Where ``x`` are the dense activations this is the optimal brain surgeon's update (Hassibi and Stork 1993), for
layers that of He et al. 2017 (https://arxiv.org/abs/1707.06168); with the slim ones it also takes back errors of the
layers before. The ridge is a multiple of the mean variance of the features.

Where a result goes through a ReLU or a clip and nowhere else, what is beyond its bounds on both sides is not missing:
``e`` is taken to the nearest number that gives the same behind it. Each round with such targets lowers the error behind
the activation, for ``|t - z|^2`` with them bounds it from above (majorisation; the loss is that of Zhang et al. 2015,
https://arxiv.org/abs/1505.06798).

Covariances are sums in float64 of products of rows about their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Fit", "Fitting", "Rows", "joined"]

Array: TypeAlias = npt.NDArray[Any]

CHUNK = 1 << 13
"""Rows that are multiplied at a time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What enters a layer, ``(groups, n, features)`` relative to ``offset``, what it is to give, and what is added to
    its result afterwards, ``(groups, n, outputs)``; ``bounds`` are those of the activation that alone sees the sum of
    both."""

    x: Array
    wanted: Array
    offset: Array
    added: Array | None = None
    bounds: tuple[float, float] | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self.x.shape[1])

    def missing(self, matrix: Array, constant: Array) -> Array:
        """How far the layer is from what it is to give; ``constant`` is for rows relative to the offset."""
        made = self.x @ matrix.transpose(0, 2, 1).astype(np.float32)
        made += constant[:, None].astype(np.float32)
        if self.bounds is None:
            return np.asarray(self.wanted - made)
        low, high = self.bounds
        target = self.wanted
        if self.added is not None:
            made, target = made + self.added, target + self.added
        clipped = np.clip(target, low, high)
        same = ((made < low) & (clipped <= low)) | ((made > high) & (clipped >= high))
        return np.asarray(np.where(same, np.float32(0), clipped - made))

    def loss(self, matrix: Array, constant: Array) -> float:
        """The sum of squares of what is missing, behind the activation where there is one."""
        error = self.missing(matrix, constant)
        if self.bounds is not None:
            target = self._target()
            made = target - error  # where both are beyond a bound the error is none, as behind it
            error = target - np.clip(made, *self.bounds)
        return float(np.square(error, dtype=np.float64).sum())

    def variation(self) -> float:
        """The sum of squares of what is wanted about its mean, behind the activation where there is one."""
        target = self._target()
        return float(np.square(target - target.mean(1, keepdims=True), dtype=np.float64).sum())

    def _target(self) -> Array:
        if self.bounds is None:
            return self.wanted
        return np.clip(self.wanted if self.added is None else self.wanted + self.added, *self.bounds)

    def part(self, own: Any) -> Rows:
        """Some of the rows."""
        added = None if self.added is None else self.added[:, own]
        return Rows(self.x[:, own], self.wanted[:, own], self.offset, added, self.bounds)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several parts, which have one offset, as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    added = [own.added for own in parts if own.added is not None]
    return Rows(
        np.concatenate([own.x for own in parts], 1),
        np.concatenate([own.wanted for own in parts], 1),
        first.offset,
        np.concatenate(added, 1) if added else None,
        first.bounds,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """A layer's matrix ``(groups, outputs, features)`` and the constant that each call of it adds to rows relative to
    their offset."""

    matrix: Array
    constants: tuple[Array, ...]

    def loss(self, calls: Sequence[Rows]) -> float:
        """The sum of squares that is missing in all calls."""
        return sum(rows.loss(self.matrix, own) for rows, own in zip(calls, self.constants, strict=True))


class Fitting:
    """Least squares for one weight on the rows of all ``calls`` that use it; ``bias`` tells whether constants may move.

    What does not depend on the ridge is computed once; without the ``covariance`` only constants can be had.
    """

    def __init__(self, calls: Sequence[Rows], start: Fit, bias: bool, covariance: bool = True) -> None:
        self.calls, self.start, self.bias = calls, start, bias
        self.count = sum(rows.count for rows in calls)
        self.means = [self._mean(rows.x) for rows in calls]
        self.features = start.matrix.shape[-1]
        if not covariance:
            return
        total: Array | float = 0.0
        for rows, mean in zip(calls, self.means, strict=True):
            total = total + _products(rows.x, rows.x) - rows.count * mean[:, :, None] * mean[:, None, :]
        self.covariance = np.asarray(total) / self.count
        scale = np.trace(self.covariance, axis1=1, axis2=2) / max(self.features, 1)
        self.scale = np.maximum(scale, 1e-9 * (scale.max(initial=0.0) or 1.0))

    def fit(self, ridge: float, rounds: int = 1) -> Fit:
        """The best matrix and constants; more than one round pays where activations bound what counts."""
        loaded = self.covariance.copy()
        np.einsum("gff->gf", loaded)[...] += (ridge * self.scale)[:, None]
        inverse = np.linalg.inv(loaded)
        del loaded
        fit = self.start
        for number in range(rounds):
            cross, ends = self._cross(fit) if number else self._first
            change = cross @ inverse
            constants = fit.constants
            if self.bias:
                constants = tuple(
                    own + end - np.einsum("gof,gf->go", change, mean)
                    for own, end, mean in zip(constants, ends, self.means, strict=True)
                )
            fit = Fit(fit.matrix + change, constants)
        return fit

    def shifted(self) -> Fit:
        """The start with the mean of what is missing absorbed by its constants (FLAP, An et al. 2023, 2312.11983)."""
        start = self.start
        pairs = zip(self.calls, start.constants, strict=True)
        return Fit(start.matrix, tuple(own + self._mean(rows.missing(start.matrix, own)) for rows, own in pairs))

    @cached_property
    def _first(self) -> tuple[Array, list[Array]]:
        return self._cross(self.start)

    def _mean(self, values: Array) -> Array:
        return values.mean(1, dtype=np.float64) if self.bias else np.zeros((values.shape[0], values.shape[2]))

    def _cross(self, fit: Fit) -> tuple[Array, list[Array]]:
        """The covariance of what is missing with the inputs, and the mean of what is missing in each call."""
        total: Array | float = 0.0
        ends: list[Array] = []
        for rows, mean, constant in zip(self.calls, self.means, fit.constants, strict=True):
            error = rows.missing(fit.matrix, constant)
            end = self._mean(error)
            total = total + _products(error, rows.x) - rows.count * end[:, :, None] * mean[:, None, :]
            ends.append(end)
        return np.asarray(total) / self.count, ends


def _products(a: Array, b: Array) -> Array:
    """The sum over rows of ``a b'`` by group."""
    total = np.zeros((a.shape[0], a.shape[2], b.shape[2]))
    for start in range(0, a.shape[1], CHUNK):
        total += a[:, start : start + CHUNK].transpose(0, 2, 1) @ b[:, start : start + CHUNK]
    return total
