from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphprune.allocate import allocate, hull


def network(seed: int) -> tuple[list[np.ndarray], list[int], list[int]]:
    """A chain of layers: losses of each width, sizes, and what a product of two widths costs."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, rng.integers(2, 5)).tolist()
    steps = [rng.exponential(1, size) * rng.uniform(0.2, 5) for size in sizes]
    if seed % 3 < 2:  # convex losses, concave ones, and others
        steps = [np.sort(own)[:: 1 - 2 * (seed % 3)] for own in steps]
    return [np.concatenate([[0], np.cumsum(own)]) for own in steps], sizes, rng.integers(1, 9, len(sizes)).tolist()


def spent(counts: list[int], sizes: list[int], prices: list[int]) -> float:
    kept = [3, *(size + 1 - count for size, count in zip(sizes, counts, strict=True))]
    return sum(price * a * b for price, a, b in zip(prices, kept, kept[1:], strict=False)) + 2 * kept[-1]


def test_least_loss_within_the_budget_as_by_trying_everything() -> None:
    optimal = 0
    for seed in range(120):
        losses, sizes, prices = network(seed)
        limit = (0.3 + 0.6 * (seed % 7) / 7) * spent([0] * len(sizes), sizes, prices)

        def meets(
            counts: list[int], sizes: list[int] = sizes, prices: list[int] = prices, limit: float = limit
        ) -> bool:
            return spent(counts, sizes, prices) <= limit

        def pressure(counts: list[int], sizes: list[int] = sizes, prices: list[int] = prices) -> float:
            return spent(counts, sizes, prices)

        def loss(counts: tuple[int, ...] | list[int], losses: list[np.ndarray] = losses) -> float:
            return float(sum(own[count] for own, count in zip(losses, counts, strict=True)))

        everything = itertools.product(*(range(size + 1) for size in sizes))
        best = min((loss(counts) for counts in everything if meets(list(counts))), default=None)
        found = allocate(losses, meets, pressure)
        assert (found is None) == (best is None)
        if found is not None and best is not None:
            assert meets(found)
            assert loss(found) <= 1.1 * best + 1e-9
            optimal += loss(found) <= best + 1e-9
            assert found == allocate(losses, meets, pressure)
        else:
            optimal += 1
    assert optimal >= 117


def test_what_fits_is_left_alone_and_what_cannot_fit_has_no_answer() -> None:
    losses = [np.array([0.0, 1.0, 2.0])] * 2
    assert allocate(losses, lambda counts: True, lambda counts: -sum(counts)) == [0, 0]
    assert allocate(losses, lambda counts: False, lambda counts: -sum(counts)) is None
    assert allocate([], lambda counts: True, lambda counts: 0.0) == []


@pytest.mark.parametrize("losses", [[0, 1, 3], [0, 3, 4, 9], [0, 5, 5, 5], [0.0]])
def test_hulls_are_convex_and_below(losses: list[float]) -> None:
    found = hull(np.array(losses, float))
    assert (found <= losses).all()
    assert (np.diff(found, 2) >= -1e-12).all()
    assert (found[0], found[-1]) == (losses[0], losses[-1])
