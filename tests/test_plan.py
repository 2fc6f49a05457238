"""Plans: written, read, replayed and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from random_graphs import random_model

import graphprune
from graphprune.models import digits_path
from graphprune.models.reference import REFERENCE


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()  # type: ignore[union-attr]
        for name, value in model.graph.initializers.items()
    }


def assert_same(a: ir.Model, b: ir.Model) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_a_replayed_plan_gives_the_same_model(tmp_path: Path) -> None:
    first = graphprune.prune(digits_path(), ratio=0.5, plan_path=tmp_path / "plan.json")
    again = graphprune.apply(tmp_path / "plan.json", digits_path())
    assert again.verified
    assert_same(first.model, again.model)
    assert first.plan is not None
    assert graphprune.Plan.load(tmp_path / "plan.json") == first.plan


def test_two_cuts_become_one_plan() -> None:
    result = graphprune.prune(digits_path(), pipeline="canonicalize, prune{ratio=0.3}, prune{ratio=0.3}")
    assert result.plan is not None
    assert_same(result.model, graphprune.apply(result.plan, digits_path()).model)


def test_a_plan_repeats_what_was_done_before_the_cut() -> None:
    model = REFERENCE["shufflenet_v2"](tiny=True)
    result = graphprune.prune(model, pipeline="canonicalize, movement-to-gather, prune{ratio=0.5}")
    assert result.plan is not None
    assert_same(result.model, graphprune.apply(result.plan, model).model)
    assert graphprune.verify(model, result.model, result.plan).ok


def test_no_plan_says_what_lossless_did(tmp_path: Path) -> None:
    model = onnx_with_dead_filters()
    with pytest.raises(graphprune.UsageError, match="no plan"):
        graphprune.prune(model, pipeline="canonicalize, lossless", plan_path=tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


def onnx_with_dead_filters() -> ir.Model:
    """The shipped network with a channel inside a block switched off by its normalisation's scale and shift."""
    model = ir.load(digits_path())
    for name in ("1.expand.1.weight", "1.expand.1.bias"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[0] = 0
        value.const_value = ir.tensor(array, name=value.name)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a plan"),
        (lambda text: "[]", "not a plan"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "format 99"),
        (lambda text: text.replace("0.0.weight", "no.such.weight"), "no tensor 'no.such.weight'"),
    ],
)
def test_what_is_no_plan_is_refused(change: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    graphprune.prune(digits_path(), ratio=0.5, plan_path=path)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(graphprune.UsageError, match=message):
        graphprune.apply(path, digits_path())


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    plan = graphprune.prune(digits_path(), ratio=0.5).plan
    assert plan is not None
    tensor = next(name for name, dims in plan.cuts.items() if 0 in dims)
    cut = plan.cuts[tensor][0]
    other = tuple(sorted(set(range(cut.size)) - set(cut.keep)))[: len(cut.keep)]
    wrong = {**plan.cuts, tensor: {**plan.cuts[tensor], 0: type(cut)(cut.size, other)}}
    with pytest.raises(graphprune.UsageError, match="contradict"):
        graphprune.apply(type(plan)(wrong), digits_path())


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_plans_of_random_graphs_replay(seed: int) -> None:
    model = random_model(seed)
    try:
        result = graphprune.prune(model, ratio=0.5, verify=False)
    except graphprune.TargetError:
        return
    assert result.plan is not None
    text = result.plan.to_json()
    assert_same(result.model, graphprune.apply(graphprune.Plan.from_json(text), model, verify=False).model)
