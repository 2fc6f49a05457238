"""Filters of heads and their width, of tables, and of layers too large to be compared at once."""

from __future__ import annotations

import numpy as np
import pytest
from analysed import Analysed, analyse

from graphprune.models.reference.builder import GraphBuilder
from graphprune.score import fpgm, similarity
from graphprune.score.fpgm import distance_sums
from graphprune.score.similarity import distinctness


def weight(program: Analysed, name: str) -> np.ndarray:  # type: ignore[type-arg]
    value = program.model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().astype(np.float64)


def test_heads_and_their_width_are_compared_each_for_itself() -> None:
    b = GraphBuilder()
    y = b.linear(b.input("x", (1, 4, 8)), 6, bias=False)
    y = b.transpose(b.reshape(y, (1, 4, 2, 3), (1, 4, 2, 3)), 0, 2, 1, 3)
    y = b.mul(y, b.weight(2, 1, 1, name="scale"))
    y = b.reshape(b.transpose(y, 0, 2, 1, 3), (1, 4, 6), (1, 4, 6))
    b.output(b.linear(y, 5, bias=False), "y")
    program = analyse(b.model())
    rows = weight(program, "weight").T.reshape(2, 3, 8)  # heads, width, inputs
    wide = rows.transpose(1, 0, 2).reshape(3, 16)
    for group in program.structure.groups:
        whole = rows.reshape(2, 24) if group.size == 2 else wide
        distances = np.linalg.norm(whole[:, None] - whole, axis=2).sum(1)
        np.testing.assert_allclose(program.scores("fpgm")[group.leaf], distances, rtol=1e-5)
        found = program.scores("similarity")[group.leaf]
        assert found[np.linalg.norm(whole, axis=1).argmax()] == 1
        unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        if group.size == 2:
            np.testing.assert_allclose(found.min(), 1 - max(unit[0] @ unit[1], 0), rtol=1e-5)
    assert sorted(group.size for group in program.structure.groups) == [2, 3]


def test_columns_of_a_table_are_the_filters_of_what_is_looked_up() -> None:
    b = GraphBuilder()
    table = b.weight(9, 4, name="table")
    x = b.gather(table, b.input("ids", (1, 5), np.int64), 0)
    b.output(b.linear(x, 3, bias=False), "y")
    program = analyse(b.model())
    (group,) = (group for group in program.structure.groups if group.size == 4)
    columns = weight(program, "table").T
    np.testing.assert_allclose(program.scores("fpgm")[group.leaf], distance_sums(columns), rtol=1e-5)
    flow = np.abs(columns).mean(1) * np.abs(weight(program, "weight")).sum(1)
    np.testing.assert_allclose(program.scores("synflow")[group.leaf], 2 * flow / flow.sum(), rtol=1e-5)


def test_without_a_layer_that_makes_them_positions_are_judged_by_their_norm() -> None:
    b = GraphBuilder()
    x = b.add(b.input("x", (1, 1)), b.weight(7, name="offset"))
    b.output(b.reduce("ReduceSum", x, 1), "y")
    program = analyse(b.model())
    for name in ("fpgm", "similarity", "bn-scale", "synflow"):
        for group in program.structure.groups:
            np.testing.assert_allclose(program.scores(name)[group.leaf], np.abs(weight(program, "offset")), rtol=1e-6)


def test_distances_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 7)) + 100
    expected = np.linalg.norm(rows[:, None] - rows, axis=2).sum(1)
    np.testing.assert_allclose(distance_sums(rows), expected, rtol=1e-9)
    monkeypatch.setattr(fpgm, "BLOCK", 8)
    np.testing.assert_allclose(distance_sums(rows), expected, rtol=1e-9)


def test_of_each_cluster_the_longest_stays() -> None:
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((6, 40))
    cluster = np.arange(60) % 6
    vectors = centres[cluster] + 0.01 * generator.standard_normal((60, 40))
    vectors *= generator.uniform(0.5, 2, (60, 1))
    scores = distinctness(vectors @ vectors.T)
    kept = np.argsort(-scores)[:6]
    assert sorted(cluster[kept]) == list(range(6))
    assert np.sort(scores)[-6] > 0.3
    assert np.sort(scores)[-7] < 0.01
    exact = np.repeat(np.eye(3), 2, axis=0) * np.array([1, 2, 3, 1, 1, 1])[:, None]
    np.testing.assert_allclose(distinctness(exact @ exact.T), [0, 1, 1, 0, 1, 0], atol=1e-12)


def test_wide_axes_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder()
    b.output(b.conv(b.relu(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3)), 5, 1), "y")
    program = analyse(b.model())
    (group,) = program.structure.groups
    monkeypatch.setattr(similarity, "MOST", 4)
    rows = weight(program, "weight").reshape(8, -1)
    parts = [distinctness(part @ part.T) for part in (rows[:4], rows[4:])]
    np.testing.assert_allclose(program.scores("similarity")[group.leaf], np.concatenate(parts), rtol=1e-5)
