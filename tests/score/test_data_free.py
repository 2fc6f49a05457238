"""Criteria that need no data, against numbers worked out by hand; both hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
from twin_networks import HOSTS, Network, by_size, evidence

from graphprune.score import criterion

pytestmark = [
    pytest.mark.parametrize("host", HOSTS),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

A = [[3, 4], [0, 5], [6, 8]]  # three filters of norms 5, 5, 10; the first and the last are parallel
B = [[1, 0, 2], [2, 3, 0]]  # squared norms of columns 5, 9, 4


def chain(o: Any, x: Any) -> Any:
    return o.conv(o.relu(o.conv(x, A)), B)


def scores(host: str, network: Network, name: str) -> dict[int, Any]:
    return by_size(criterion(name).score(evidence(host, network)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [(7 + 3) / 2, (5 + 3) / 2, (14 + 2) / 2]),
        ("l1:reduction=sum", [10, 8, 16]),
        ("l1:reduction=max", [7, 5, 14]),
        ("l1:reduction=first", [7, 5, 14]),
        ("l1:reduction=prod", np.sqrt([7 * 3, 5 * 3, 14 * 2])),
        ("group-norm", np.sqrt([25 + 5, 25 + 9, 100 + 4])),
        ("lamp", [15 / (15 + 17 + 52), 17 / (17 + 52), 1]),
        ("fpgm", [np.sqrt(10) + 5, np.sqrt(10) + np.sqrt(45), 5 + np.sqrt(45)]),
        ("similarity", [0, 0.2, 1]),
        ("bn-scale", [5, 5, 10]),
        ("synflow", np.array([7 * 3, 5 * 3, 14 * 2]) * 2 / 64),
    ],
)
def test_two_layers(host: str, name: str, expected: Any) -> None:
    npt.assert_allclose(scores(host, chain, name)[3], expected, rtol=1e-6, atol=1e-12)


def test_scales_of_normalisations(host: str) -> None:
    """A scale counts by itself where there is one, and with the filter where it was folded into it."""

    def network(o: Any, x: Any) -> Any:
        return o.conv(o.relu(o.norm(o.conv(x, A), [-2, 0.5, 1])), B)

    given = evidence(host, network)
    folded = not any("atch" in call.op and "orm" in call.op for call in given.structure.calls)
    found = by_size(criterion("bn-scale").score(given))[3]
    npt.assert_allclose(found, [10, 2.5, 10] if folded else [2, 0.5, 1], rtol=1e-6)
    rows = np.array([100 + 5, 6.25 + 9, 100 + 4]) if folded else np.array([25 + 4 + 5, 25 + 0.25 + 9, 100 + 1 + 4])
    npt.assert_allclose(by_size(criterion("group-norm").score(given))[3], np.sqrt(rows), rtol=1e-6)
    flow = np.array([14 * 3, 2.5 * 3, 14 * 2])
    npt.assert_allclose(by_size(criterion("synflow").score(given))[3], 2 * flow / flow.sum(), rtol=1e-6)


C = [[1, 0, 0, 0], [0, 0, 0, 2], [2, 0, 0, 0]]
IN = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]


def residual(o: Any, x: Any) -> Any:
    x = o.conv(x, A)
    return o.conv(o.add(x, o.conv(o.relu(o.conv(x, IN)), C)), B)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # rows of A and C, columns of IN and B
        ("group-norm", np.sqrt([25 + 1 + 2 + 5, 25 + 4 + 2 + 9, 100 + 4 + 1 + 4])),
        # C: distances of (1, 0), (0, 2), (2, 0)
        (
            "fpgm",
            [
                (np.sqrt(10) + 5 + np.sqrt(5) + 1) / 2,
                (np.sqrt(10) + np.sqrt(45) + np.sqrt(5) + np.sqrt(8)) / 2,
                (5 + np.sqrt(45) + 1 + np.sqrt(8)) / 2,
            ],
        ),
        # side by side (3 4 1 0), (0 5 0 2), (6 8 2 0)
        ("similarity", [0, 1 - 20 / np.sqrt(26 * 29), 1]),
    ],
)
def test_streams_are_judged_by_all_layers_that_write_to_them(host: str, name: str, expected: Any) -> None:
    npt.assert_allclose(scores(host, residual, name)[3], expected, rtol=1e-6, atol=1e-9)


def test_flow_through_a_stream(host: str) -> None:
    """With |A| x = (7, 5, 14): IN gives (7, 5, 14, 12), C adds (7, 24, 14), B sums (14, 29, 28) with (3, 3, 2)."""
    found = scores(host, residual, "synflow")
    total = 14 * 3 + 29 * 3 + 28 * 2
    hidden = np.array([7 * (3 + 4), 0, 0, 12 * 6])
    npt.assert_allclose(found[4], 2 * hidden / total, rtol=1e-6)
    first = np.array([7 * (3 + 7 + 6), 5 * (3 + 6), 14 * 2])  # what A writes goes on beside the branch and through it
    inner = np.array([7 * (7 + 6), 5 * 6, 0])
    written, read = np.array([7 * 3, 24 * 3, 14 * 2]), np.array([14 * 3, 29 * 3, 28 * 2])
    npt.assert_allclose(found[3], (first + inner + written + read) / total, rtol=1e-6)


def test_parts_of_a_concatenation(host: str) -> None:
    last = [[1, 2, 3, 4, 5, 6, 7], [0] * 7]

    def network(o: Any, x: Any) -> Any:
        return o.conv(o.concat([o.conv(x, A), o.conv(x, [[1, 0], [0, 1], [1, 1], [2, 0]])]), last)

    found = scores(host, network, "group-norm")
    npt.assert_allclose(found[3], np.sqrt([25 + 1, 25 + 4, 100 + 9]), rtol=1e-6)
    npt.assert_allclose(found[4], np.sqrt([1 + 16, 1 + 25, 2 + 36, 4 + 49]), rtol=1e-6)
    found = scores(host, network, "similarity")
    npt.assert_allclose(found[3], [0, 0.2, 1], atol=1e-6)
    npt.assert_allclose(found[4], [0, 1, 1 - np.sqrt(0.5), 1], atol=1e-6)
    found = scores(host, network, "synflow")
    flow = np.array([7, 10, 42, 4, 5, 12, 14])
    npt.assert_allclose(np.concatenate([found[3], found[4]]), 2 * flow / flow.sum(), rtol=1e-6)


def test_depthwise_filters_count_for_their_strength_alone(host: str) -> None:
    def network(o: Any, x: Any) -> Any:
        return o.conv(o.conv(o.relu(o.conv(x, A)), [[2], [-1], [3]], groups=3), B)

    npt.assert_allclose(scores(host, network, "fpgm")[3], scores(host, chain, "fpgm")[3], rtol=1e-6)
    npt.assert_allclose(scores(host, network, "similarity")[3], [0, 0.2, 1], atol=1e-6)
    flow = np.array([14 * 3, 5 * 3, 42 * 2])
    npt.assert_allclose(scores(host, network, "synflow")[3], 3 * flow / flow.sum(), rtol=1e-6)


def test_groups_of_a_convolution_are_compared_as_wholes(host: str) -> None:
    """Four outputs in two groups: position k is output k of both groups."""
    weight = [[1, 0, 0], [0, 1, 0], [2, 0, 0], [0, 3, 0]]
    six = [[1, 2], [2, 1], [0, 3], [1, 0], [0, 1], [5, 5]]

    def network(o: Any, x: Any) -> Any:
        return o.conv(o.conv(o.conv(x, six), weight, groups=2), [[1, 1, 1, 1]])

    given = evidence(host, network)
    found = criterion("fpgm").score(given)
    sizes = {group.name: (group.size, {s.tensor for s in group.slices}) for group in given.structure.groups}
    (last,) = (group for group in given.structure.groups if len(group.slices) == 2 and group.size == 2)
    npt.assert_allclose(found[last.leaf], np.sqrt([2 + 4 + 9, 2 + 4 + 9]), rtol=1e-6, err_msg=str(sizes))
    found = criterion("similarity").score(given)
    npt.assert_allclose(found[last.leaf], [1, 1], rtol=1e-6)


@pytest.mark.parametrize("name", ["group-norm", "lamp", "fpgm", "similarity", "bn-scale", "synflow"])
def test_zeros_score_finite_numbers(host: str, name: str) -> None:
    def network(o: Any, x: Any) -> Any:
        return o.conv(o.relu(o.conv(x, np.zeros((3, 2)))), np.zeros((2, 3)))

    npt.assert_array_equal(scores(host, network, name)[3], 0)
