"""Criteria with options, and functions as criteria."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from analysed import Analysed, analyse

import graphprune
from graphprune.errors import UsageError
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models.reference.builder import GraphBuilder
from graphprune.score import Evidence, FunctionCriterion, Magnitude, criterion


def two_layers() -> Analysed:
    b = GraphBuilder()
    x = b.relu(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3))
    b.output(b.conv(x, 5, 1), "y")
    return analyse(b.model())


def given() -> Evidence:
    program = two_layers()
    return Evidence(program.structure, weights_of(program.model))


@pytest.mark.parametrize("key", ["leaf", "name", "group"])
def test_a_function_gives_numbers_for_each_group(key: str) -> None:
    evidence = given()
    (group,) = evidence.structure.groups

    def strength(seen: Evidence) -> dict[Any, Any]:
        keys = {"leaf": group.leaf, "name": group.name, "group": group}
        return {keys[key]: list(np.abs(seen.array("weight")).sum((1, 2, 3)))}

    made = criterion(strength)
    assert isinstance(made, FunctionCriterion)
    assert made.needs == frozenset()
    expected = np.abs(evidence.array("weight")).sum((1, 2, 3))
    assert evidence.array("weight").shape == (8, 3, 3, 3)
    np.testing.assert_allclose(made.score(evidence)[group.leaf], expected)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "gave a NoneType: return a dict"),
        ({}, "says nothing about group a0: give 8 numbers"),
        ({"a0": np.ones(7)}, r"gave shape \(7,\) for group a0: give \(8,\)"),
        ({"a0": 1.0}, r"gave shape \(\) for group a0"),
        ({"a0": ["x"] * 8}, "gave no numbers for group a0"),
        ({"a0": [np.nan] * 8}, "gave NaN or infinity for group a0"),
    ],
)
def test_what_a_function_gives_is_checked(result: Any, message: str) -> None:
    def mine(_: Evidence) -> Any:
        return result

    with pytest.raises(UsageError, match=rf"criterion mine\(\) {message}"):
        criterion(mine).score(given())


def test_a_criterion_is_taken_as_it_is() -> None:
    made = Magnitude(2, "max")
    assert criterion(made) is made
    with pytest.raises(UsageError, match="3 is neither a name nor a function"):
        criterion(3)  # type: ignore[arg-type]


def test_options_as_text() -> None:
    assert criterion("l2:reduction=max") == Magnitude(2, "max")
    assert criterion("l1:reduction=prod,p=2") == Magnitude(2, "prod")
    with pytest.raises(UsageError, match="'l1' does not take 'width=3': write OPTION=VALUE; its options are p, red"):
        criterion("l1:width=3")
    with pytest.raises(UsageError, match="'similarity' does not take 'x': write OPTION=VALUE; it has no options"):
        criterion("similarity:x")
    with pytest.raises(UsageError, match="option 'reduction' of criterion 'l1' is 'median': it is one of mean, sum"):
        criterion("l1:reduction=median")
    with pytest.raises(UsageError, match="option 'p' of criterion 'l1' is 'two': it is a number"):
        criterion("l1:p=two")


def test_prune_by_a_function() -> None:
    b = GraphBuilder()
    x = b.relu(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3))
    b.output(b.conv(x, 5, 1), "y")
    order = np.array([5, 1, 7, 3, 0, 2, 6, 4])
    result = graphprune.prune(b.model(), ratio=0.5, criterion=lambda _: {"a0": order})
    assert result.plan.cuts["weight"][0].keep == (0, 2, 6, 7)
    with pytest.raises(UsageError, match=r"criterion <lambda>\(\) says nothing about group a0"):
        graphprune.prune(b.model(), ratio=0.5, criterion=lambda _: {})
    with pytest.raises(UsageError, match="criterion 'function' is one of your own: give it in Python"):
        graphprune.prune(b.model(), ratio=0.5, criterion="function")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_prune_a_module_by_a_function() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    result = graphprune.prune(
        module, (torch.ones(2, 3),), ratio=0.5, criterion=lambda _: {"a0": [0, 3, 1, 2]}, verify=False
    )
    torch.testing.assert_close(result.module[0].weight, module[0].weight[[1, 3]])
