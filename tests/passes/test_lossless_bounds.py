from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.passes.lossless_bounds import affine, bounds_of, product_bounds, scaled, sum_bounds, widened

FLOAT = ir.DataType.FLOAT
ENDS = st.floats(-100, 100, width=32)
INTERVALS = st.lists(st.tuples(ENDS, ENDS).map(sorted), min_size=4, max_size=4).map(lambda x: tuple(np.array(x).T))
SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(np.array)


def within(interval: tuple[np.ndarray, np.ndarray], share: np.ndarray) -> np.ndarray:
    low, high = interval
    return np.clip(low + share * (high - low), low, high).astype(np.float32)


FUNCTIONS = {
    "Relu": lambda x: np.maximum(x, 0),
    "Neg": np.negative,
    "Abs": np.abs,
    "Tanh": np.tanh,
    "Exp": np.exp,
    "Sin": np.sin,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "HardSwish": lambda x: x * np.clip(x / np.float32(6) + np.float32(0.5), 0, 1),
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
}


@pytest.mark.parametrize("op", FUNCTIONS)
@settings(max_examples=40, deadline=None)
@given(a=INTERVALS, b=INTERVALS, s=SHARES, t=SHARES)
def test_results_lie_within_their_bounds(op: str, a: tuple, b: tuple, s: np.ndarray, t: np.ndarray) -> None:
    function = FUNCTIONS[op]
    two = isinstance(function, np.ufunc) and function.nin == 2
    x, y = within(a, s), within(b, t)
    with np.errstate(all="ignore"):
        result = function(x, y) if two else function(x)
    bounds = bounds_of(f"onnx.{op}", [a, b] if two else [a], FLOAT)
    assert bounds is not None
    finite = np.isfinite(result)
    assert (bounds[0] <= result)[finite].all()
    assert (result <= bounds[1])[finite].all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.sampled_from([1, 2]), bounded=st.booleans())
def test_sums_of_products(seed: int, groups: int, bounded: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((4, 3, 2)) * (rng.random((4, 3, 2)) < 0.6)).astype(np.float32)
    low, high = np.sort(rng.standard_normal((2, 3 * groups)) * 10, axis=0)
    if not bounded:
        high[rng.integers(0, 3 * groups)] = np.inf
    least, most = product_bounds(weight, (low, high), groups)
    top = np.where(np.isfinite(high), high, 1e4)
    for _ in range(10):
        x = (low + rng.random((2, 3 * groups)) * (top - low)).T.reshape(groups, 3, 2).astype(np.float32)
        y = (weight * x[np.arange(4) // (4 // groups)]).sum(axis=(1, 2), dtype=np.float32)
        assert (least <= y).all()
        assert (y <= most).all()
    assert bounded == np.isfinite(most).all() or (weight <= 0).any()


def test_sums_and_slopes() -> None:
    x = np.array([-1.0, 0.0, 2.0]), np.array([1.0, np.inf, 3.0])
    low, high = affine(x, np.array([2.0, 0.0, -1.0]), np.array([1.0, 5.0, 0.0]), np.array([1.0, 5.0, 0.0]), FLOAT)
    np.testing.assert_allclose(low, [-1, 5, -3], rtol=1e-5)
    np.testing.assert_allclose(high, [3, 5, -2], rtol=1e-5)
    assert (low < [-0.999999, 5.0, -3]).all()
    low, high = sum_bounds(scaled(x, -1.0), x)
    np.testing.assert_allclose(low, [-2, -np.inf, -1], rtol=1e-5)
    np.testing.assert_allclose(high, [2, np.inf, 1], rtol=1e-5)


def test_half_precision_proves_nothing() -> None:
    x = np.zeros(2), np.ones(2)
    assert np.isinf(widened(x, ir.DataType.FLOAT16)).all()
    assert bounds_of("onnx.Softmax", [x], FLOAT) is None
