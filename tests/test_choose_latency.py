"""Choices by predicted latency: the knapsack over groups, and widths that suit a machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from made_up_machine import images

from graphprune import passes
from graphprune.budget import Amount, Budget
from graphprune.choose import choose
from graphprune.constraints import Constraints
from graphprune.cost import CostModel
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.program import program_of
from graphprune.padding import padded
from graphprune.score.base import Scores
from graphprune.structure import Structure

TEXT = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
    a = Conv(x, w0)
    b = Relu(a)
    c = Conv(b, w1)
    d = Relu(c)
    y = Conv(d, w2)
}"""
WIDTHS = (12, 10)


def read() -> tuple[Structure, CostModel, Scores]:
    shapes = {"w0": (WIDTHS[0], 3, 1, 1), "w1": (WIDTHS[1], WIDTHS[0], 1, 1), "w2": (4, WIDTHS[1], 1, 1)}
    model = images(TEXT, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    passes.canonicalize(model)
    structure = program_of(model).read()
    generator = np.random.default_rng(1)
    scores = {group.leaf: np.sort(generator.uniform(0.1, 1, group.size)) for group in structure.groups}
    return structure, CostModel(structure), scores


def seconds(extents: Sequence[int]) -> int:
    """A latency in which the first group has vectors of four."""
    first, second = -(-extents[0] // 4) * 4, extents[1]
    return 1000 + 300 * first + 20 * first * second + 100 * second


@pytest.mark.parametrize("share", [0.9, 0.75, 0.6, 0.5, 0.35])
def test_least_score_is_lost_within_the_latency(share: float) -> None:
    structure, cost, scores = read()
    limit = round(share * seconds(WIDTHS))
    constraints = Constraints(normalizer="none")
    selection = choose(structure, scores, Budget(latency=Amount(limit, time=True)), constraints, cost, None, seconds)
    kept = [int(np.count_nonzero(selection.mask(group.leaf))) for group in structure.groups]
    assert seconds(kept) <= limit
    lost = [np.concatenate([[0.0], np.cumsum(np.sort(scores[group.leaf]))]) for group in structure.groups]
    best = min(
        sum(own[size - width] for own, size, width in zip(lost, WIDTHS, pair, strict=True))
        for pair in itertools.product(*(range(1, size + 1) for size in WIDTHS))
        if seconds(pair) <= limit
    )
    found = sum(own[size - width] for own, size, width in zip(lost, WIDTHS, kept, strict=True))
    assert found == pytest.approx(best)
    # The lowest scores of each group went.
    for group, width in zip(structure.groups, kept, strict=True):
        assert selection.mask(group.leaf).tolist() == [False] * (group.size - width) + [True] * width


def test_a_latency_out_of_reach_is_come_near_to() -> None:
    structure, cost, scores = read()
    constraints = Constraints(min_width=4)
    selection = choose(structure, scores, Budget(latency=Amount(1, time=True)), constraints, cost, None, seconds)
    assert [int(np.count_nonzero(selection.mask(group.leaf))) for group in structure.groups] == [4, 4]


def test_another_target_beside_it_holds_too() -> None:
    structure, cost, scores = read()
    budget = Budget(latency=Amount(0.9 * seconds(WIDTHS), time=True), params=Amount(0.4, relative=True))
    selection = choose(structure, scores, budget, Constraints(), cost, None, seconds)
    assert cost.of(selection).params <= 0.4 * cost.total.params
    with pytest.raises(TargetError, match="params 1% is out of reach"):
        choose(
            structure,
            scores,
            Budget(latency=Amount(1e9, time=True), params=Amount(0.01, relative=True)),
            Constraints(),
            cost,
            None,
            seconds,
        )


def test_every_group_has_a_multiple_of_its_own() -> None:
    structure, cost, scores = read()
    first, second = structure.groups
    constraints = Constraints(multiples={first.leaf: 4, second.leaf: 5})
    for budget in (Budget(ratio=0.4), Budget(latency=Amount(0.6 * seconds(WIDTHS), time=True))):
        selection = choose(structure, scores, budget, constraints, cost, None, seconds)
        kept = [int(np.count_nonzero(selection.mask(group.leaf))) for group in structure.groups]
        assert kept[0] % 4 == 0
        assert kept[1] % 5 == 0
        assert sum(kept) < sum(WIDTHS)


def test_scope_local_is_no_way_to_a_latency() -> None:
    structure, cost, scores = read()
    with pytest.raises(UsageError, match="scope local gives each group the same share, and a latency each its own"):
        choose(
            structure,
            scores,
            Budget(latency=Amount(1e6, time=True)),
            Constraints(scope="local"),
            cost,
            None,
            seconds,
        )


def test_padding_brings_the_best_back() -> None:
    structure, cost, scores = read()
    first, second = structure.groups
    selection = choose(structure, scores, Budget(ratio=0.5), Constraints(), cost)
    assert [int(selection.mask(leaf).sum()) for leaf in (first.leaf, second.leaf)] == [6, 5]
    wider = padded(structure, selection, scores, {first.leaf: 4, second.leaf: 16})
    assert wider is not None
    assert wider.mask(first.leaf).tolist() == [False] * 4 + [True] * 8
    assert wider.mask(second.leaf).all()  # a width is never more than it was
    assert padded(structure, wider, scores, {first.leaf: 4, second.leaf: 16}) is None
    assert padded(structure, selection, scores, {}) is None
