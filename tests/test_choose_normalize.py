from __future__ import annotations

import numpy as np
import onnx
import pytest
from analysed import Analysed, analyse

import graphprune
from graphprune.budget import Budget, parse_amount
from graphprune.choose import choose
from graphprune.constraints import Constraints
from graphprune.errors import UsageError
from graphprune.models import digits_path, reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.score.normalize import Normalizer, classes, costs, normalize
from graphprune.selection import Selection


def chain(*widths: int) -> onnx.ModelProto:
    b = GraphBuilder()
    x = b.input("x", (1, 5))
    for width in widths:
        x = b.relu(b.gemm(x, width))
    b.output(b.gemm(x, 3), "y")
    return b.model()


def kept(program: Analysed, selection: Selection) -> list[int]:
    return [int(selection.count(group.leaf)) for group in program.structure.groups]  # type: ignore[arg-type]


# -- classes ----------------------------------------------------------------------------------------------------------


def test_blocks_of_a_resnet_are_of_one_class_and_its_streams_of_others() -> None:
    program = analyse(reference.resnet18())
    kinds = classes(program.structure)
    by_name = {group.name: kinds[group.leaf] for group in program.structure.groups}
    # the stem is followed by a pooling and has two blocks without a projection; the last stage feeds the classifier
    assert by_name["a0"] != by_name["a4"] == by_name["a7"] != by_name["a10"]
    assert len({by_name[name] for name in ("a1", "a2", "a3", "a5", "a6", "a8", "a9", "a11")}) == 1


def test_layers_of_a_transformer_share_classes_and_roles_do_not() -> None:
    program = analyse(reference.gpt2(tiny=True))
    kinds = classes(program.structure)
    found = [(group.role, kinds[group.leaf]) for group in program.structure.groups]
    # queries and keys share the width of a head, values have another; both layers hold the same
    layer = [("head", 1), ("head width", 2), ("head width", 3), ("ffn", 4)]
    assert found == [("residual", 0), *layer, *layer]


def test_each_class_loses_the_same_share_and_groups_compete_within() -> None:
    program = analyse(reference.resnet18())
    rng = np.random.default_rng(0)
    scores = {g.leaf: rng.uniform(0.5, 1.5, g.size) * 10.0**number for number, g in enumerate(program.structure.groups)}
    constraints = Constraints(scope="global", normalizer="class", max_ratio=1.0)
    selection = choose(program.structure, scores, Budget(ratio=0.4), constraints)
    kinds = classes(program.structure)
    sizes: dict[int, int] = {}
    left: dict[int, int] = {}
    for group in program.structure.groups:
        sizes[kinds[group.leaf]] = sizes.get(kinds[group.leaf], 0) + group.size
        left[kinds[group.leaf]] = left.get(kinds[group.leaf], 0) + int(selection.count(group.leaf))  # type: ignore[arg-type]
    for kind, size in sizes.items():
        assert abs(left[kind] - 0.6 * size) <= 5  # each group keeps one position, and a share is of whole positions
    a1, a11 = program.structure.groups[1], program.structure.groups[11]
    assert (int(selection.count(a1.leaf)), int(selection.count(a11.leaf))) == (1, a11.size)  # type: ignore[arg-type]


# -- costs ------------------------------------------------------------------------------------------------------------


def test_costs_of_a_position_by_hand() -> None:
    program = analyse(chain(10, 20))
    first, second = program.structure.groups
    assert costs(program.cost, "macs") == {first.leaf: 5 + 20, second.leaf: 10 + 3}
    assert costs(program.cost, "memory") == {first.leaf: 2, second.leaf: 2}  # Gemm and Relu, one element each


def test_scores_are_divided_by_what_positions_cost() -> None:
    program = analyse(chain(10, 20))
    first, second = program.structure.groups
    scores = {first.leaf: np.arange(1.0, 11), second.leaf: np.arange(1.0, 21)}
    found = normalize(scores, "max/macs", program.cost)
    np.testing.assert_allclose(found[first.leaf], np.arange(1, 11) / 10 / 25)
    np.testing.assert_allclose(found[second.leaf], np.arange(1, 21) / 20 / 13)
    raw = normalize(scores, "memory", program.cost)
    np.testing.assert_allclose(raw[first.leaf], np.arange(1, 11) / 2)
    below = normalize(scores, "standard/macs", program.cost)
    assert all((np.diff(values) > 0).all() for values in below.values())


def test_expensive_groups_lose_more() -> None:
    program = analyse(chain(40, 10))
    scores = {group.leaf: np.linspace(1, 2, group.size) for group in program.structure.groups}
    budget = Budget(macs=parse_amount("60%"))
    alike = kept(program, choose(program.structure, scores, budget, Constraints(normalizer="none"), program.cost))
    priced = kept(program, choose(program.structure, scores, budget, Constraints(normalizer="macs"), program.cost))
    assert priced[1] < alike[1]  # a position of the second costs 43, one of the first 15
    assert priced[0] > alike[0]


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["max", "macs", "class", "max/macs", "sum/class", "mean/memory/class", "none/macs"])
def test_normalisers_meet_budgets_alike(text: str) -> None:
    program = analyse(reference.resnet18(tiny=True))
    for budget in (Budget(macs=parse_amount("55%")), Budget(params=parse_amount("55%"), peak=parse_amount("70%"))):
        constraints = Constraints(normalizer=text)
        selections = [choose(program.structure, program.scores(), budget, constraints, program.cost) for _ in "ab"]
        assert kept(program, selections[0]) == kept(program, selections[1])
        widths = {leaf: int(mask.sum()) for leaf, mask in selections[0].keep.items()}
        after, total = program.cost.at(widths, peak=True), program.cost.at({}, peak=True)
        for name, limit in budget.limits(total).items():
            assert getattr(after, name) <= limit


@pytest.mark.parametrize("text", ["/", "x", "macs/max", "class/macs", "max/max", "macs/memory", "max/"])
def test_normalisers_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="no normaliser is called"):
        Normalizer(text)
    with pytest.raises(UsageError, match="no normaliser is called"):
        graphprune.prune(digits_path(), ratio=0.5, normalize=text)


def test_no_group_loses_more_than_the_maximum_ratio() -> None:
    program = analyse(chain(100, 100))
    first, second = program.structure.groups
    scores = {first.leaf: np.linspace(0, 1e-6, 100), second.leaf: np.linspace(1, 2, 100)}
    for most, left in ((0.95, 5), (0.7, 30), (1.0, 2)):
        constraints = Constraints(scope="global", normalizer="none", max_ratio=most)
        selection = choose(program.structure, scores, Budget(ratio=0.49 if most != 0.7 else 0.45), constraints)
        assert kept(program, selection)[0] == left
    with pytest.raises(UsageError, match="maximum ratio 0 is out of range"):
        Constraints(max_ratio=0)


def test_options_reach_the_choice() -> None:
    ways = ("max", "class", "max/macs")
    results = [graphprune.prune(digits_path(), macs="60%", normalize=how, max_ratio=0.6) for how in ways]
    assert len({result.plan.to_json() for result in results}) == 3
    result = graphprune.prune(digits_path(), peak="70%")
    assert result.verified
