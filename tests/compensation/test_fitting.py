"""Least squares against direct solutions, and rounds that look behind an activation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from graphprune.compensation.fitting import Fit, Fitting, Rows, joined

RNG = np.random.default_rng(0)


def _case(features: int = 7, outputs: int = 3, count: int = 400, groups: int = 1) -> tuple[Any, Any, Any, Any]:
    """Correlated inputs, a matrix and a constant as cut, and targets that another one makes."""
    mixing = np.eye(features) + 0.3 * RNG.standard_normal((groups, features, features))
    x = (RNG.standard_normal((groups, count, features)) @ mixing + 1).astype(np.float32)
    matrix = RNG.standard_normal((groups, outputs, features))
    wanted = x @ RNG.standard_normal((groups, features, outputs)) + RNG.standard_normal((groups, 1, outputs))
    noise = 0.1 * RNG.standard_normal(wanted.shape)
    return x, matrix, np.zeros((groups, outputs)), (wanted + noise).astype(np.float32)


def _rows(x: Any, wanted: Any, **more: Any) -> Rows:
    offset = x.mean(1)
    return Rows(x - offset[:, None], wanted, offset, **more)


def _start(matrix: Any, constant: Any, *calls: Rows) -> Fit:
    return Fit(matrix, tuple(constant + np.einsum("gof,gf->go", matrix, rows.offset) for rows in calls))


@pytest.mark.parametrize("groups", [1, 4])
def test_without_a_ridge_it_is_least_squares(groups: int) -> None:
    """Weight and constant are those of ``numpy.linalg.lstsq`` with a column of ones."""
    x, matrix, constant, wanted = _case(groups=groups)
    rows = _rows(x, wanted)
    found = Fitting([rows], _start(matrix, constant, rows), True).fit(1e-9)
    for group in range(groups):
        wide = np.concatenate([x[group], np.ones((len(x[group]), 1))], 1)
        direct = np.linalg.lstsq(wide, wanted[group], rcond=None)[0]
        absolute = found.constants[0][group] - found.matrix[group] @ rows.offset[group]
        assert np.allclose(found.matrix[group], direct[:-1].T, atol=1e-3)
        assert np.allclose(absolute, direct[-1], atol=1e-2)


def test_without_a_bias_nothing_is_centred() -> None:
    """The constant stays, and the matrix is that of least squares through the origin."""
    x, matrix, constant, wanted = _case()
    rows = Rows(x, wanted, np.zeros((1, 7)))
    found = Fitting([rows], Fit(matrix, (constant,)), False).fit(1e-9)
    assert np.allclose(found.matrix[0], np.linalg.lstsq(x[0], wanted[0], rcond=None)[0].T, atol=1e-3)
    assert np.array_equal(found.constants[0], constant)


def test_the_update_is_that_of_the_optimal_brain_surgeon() -> None:
    """Dropping inputs of a dense layer and fitting the rest: ``-W_S ((H^-1)_SS)^-1 (H^-1)_S,K``."""
    x, _, constant, _ = _case(features=8)
    dense = RNG.standard_normal((1, 3, 8))
    gone, kept = [1, 5], [0, 2, 3, 4, 6, 7]
    wanted = (x @ dense.transpose(0, 2, 1)).astype(np.float32)
    rows = _rows(x[..., kept], wanted)
    found = Fitting([rows], _start(dense[..., kept], constant, rows), True).fit(1e-9)
    inverse = np.linalg.inv(np.cov(x[0].T))
    change = -dense[0][:, gone] @ np.linalg.inv(inverse[np.ix_(gone, gone)]) @ inverse[np.ix_(gone, kept)]
    assert np.allclose(found.matrix[0], dense[0][:, kept] + change, atol=1e-3)


def test_the_ridge_draws_towards_the_weight_as_it_is() -> None:
    """A huge one changes nothing; a direction that the data never show keeps its weight with any."""
    x, matrix, constant, wanted = _case()
    x[..., 3] = x[..., 2]
    rows = _rows(x, wanted)
    fitting = Fitting([rows], _start(matrix, constant, rows), True)
    assert np.allclose(fitting.fit(1e9).matrix, matrix, atol=1e-4)
    change = fitting.fit(1e-4).matrix - matrix
    assert np.allclose(change[..., 3], change[..., 2], atol=1e-3)  # nothing along (1, -1)


def test_one_weight_for_several_calls() -> None:
    """The matrix is that of all rows together, each call's about its own mean; constants are each call's own."""
    x, matrix, constant, wanted = _case()
    calls = [_rows(x, wanted), _rows(x - 3, wanted + 5)]
    found = Fitting(calls, _start(matrix, constant, *calls), True).fit(1e-9)
    centred = np.concatenate([x[0] - x[0].mean(0)] * 2), np.concatenate([wanted[0] - wanted[0].mean(0)] * 2)
    assert np.allclose(found.matrix[0], np.linalg.lstsq(*centred, rcond=None)[0].T, atol=1e-3)
    assert all(np.allclose(rows.missing(found.matrix, own).mean(1), 0, atol=1e-3)
               for rows, own in zip(calls, found.constants, strict=True))  # fmt: skip


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (-1.0, 1.0)])
@pytest.mark.parametrize("added", [False, True])
def test_rounds_lower_the_loss_behind_an_activation(bounds: tuple[float, float], added: bool) -> None:
    """Each round leaves less, and the first less than plain least squares would after several."""
    x, matrix, constant, wanted = _case(count=2000)
    wanted = np.where(wanted < bounds[0], wanted - 5, wanted)  # what a linear fit would spend itself on
    stream = RNG.standard_normal(wanted.shape).astype(np.float32) if added else None
    rows = _rows(x, wanted, added=stream, bounds=bounds)
    start = _start(matrix, constant, rows)
    fitting = Fitting([rows], start, True)
    losses = [start.loss([rows]), *(fitting.fit(1e-6, rounds).loss([rows]) for rounds in (1, 2, 4, 8))]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    plain = _rows(x, wanted)
    linear = Fitting([plain], start, True).fit(1e-6)
    assert losses[-1] < linear.loss([rows])


def test_the_loss_is_what_shows_behind_the_activation() -> None:
    """By its definition, the sum in front of it included."""
    x, matrix, constant, wanted = _case()
    stream = RNG.standard_normal(wanted.shape).astype(np.float32)
    rows = _rows(x, wanted, added=stream, bounds=(0.0, 6.0))
    start = _start(matrix, constant, rows)
    made = x @ matrix.transpose(0, 2, 1) + stream
    direct = np.square(np.clip(wanted + stream, 0, 6) - np.clip(made, 0, 6)).sum()
    assert start.loss([rows]) == pytest.approx(direct, rel=1e-4)


def test_the_mean_alone() -> None:
    """A bias takes up the mean of what is missing, and the matrix stays."""
    x, matrix, constant, wanted = _case()
    rows = _rows(x, wanted)
    found = Fitting([rows], _start(matrix, constant, rows), True).shifted()
    assert found.matrix is matrix
    assert np.allclose(rows.missing(found.matrix, found.constants[0]).mean(1), 0, atol=1e-4)


def test_parts_join() -> None:
    """Rows of several batches are one."""
    x, _, _, wanted = _case()
    rows = _rows(x, wanted, added=wanted, bounds=(0.0, 1.0))
    again = joined([rows.part(slice(0, 100)), rows.part(slice(100, None))])
    assert again.count == rows.count
    assert np.array_equal(again.x, rows.x)
    assert again.added is not None
    assert np.array_equal(again.added, wanted)
