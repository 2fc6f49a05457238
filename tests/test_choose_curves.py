from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from analysed import Analysed, analyse

from graphprune.budget import Budget, parse_amount
from graphprune.choose import choose
from graphprune.constraints import Constraints
from graphprune.curves import Curve, Curves, structure_mark
from graphprune.errors import ModelError, TargetError, UsageError
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.selection import Selection

REMOVED = (0.25, 0.5, 0.75, 0.9)


def chain(*widths: int) -> onnx.ModelProto:
    b = GraphBuilder()
    x = b.input("x", (1, 5))
    for width in widths:
        x = b.relu(b.gemm(x, width))
    b.output(b.gemm(x, 3), "y")
    return b.model()


def measured(program: Analysed, *losses: tuple[float, ...]) -> Curves:
    """Curves of the first groups."""
    groups = program.structure.groups
    curves = [Curve({group.name: group.size}, REMOVED, loss) for group, loss in zip(groups, losses, strict=False)]
    return Curves(tuple(curves), structure_mark(program.structure), {})


def random_curves(program: Analysed) -> Curves:
    rng = np.random.default_rng(0)
    pools: dict[int, dict[str, int]] = {}
    for group in program.structure.groups:
        pools.setdefault(group.leaf.pool, {})[group.name] = group.size
    curves = [Curve(own, REMOVED, tuple(np.cumsum(rng.exponential(1, 4)).tolist())) for own in pools.values()]
    return Curves(tuple(curves), structure_mark(program.structure), {})


def kept(program: Analysed, selection: Selection) -> list[int]:
    return [int(selection.count(group.leaf)) for group in program.structure.groups]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"round_to": 4}, {"min_width": 3}, {"normalizer": "losses"}])
@pytest.mark.parametrize("measured", [True, False])
def test_budgets_are_met(name: str, options: dict[str, Any], measured: bool) -> None:
    program = analyse(getattr(reference, name)(tiny=True))
    curves = random_curves(program) if measured else None
    constraints = Constraints(**options if measured else {"scope": "global", **options, "normalizer": "losses"})
    for budget in (
        Budget(macs=parse_amount("60%")),
        Budget(params=parse_amount("70%"), bytes=parse_amount("60%")),
        Budget(macs=parse_amount("80%"), peak=parse_amount("97%")),
        Budget(ratio=0.4),
    ):
        first, second = (
            choose(program.structure, program.scores(), budget, constraints, program.cost, curves) for _ in range(2)
        )
        assert kept(program, first) == kept(program, second)
        widths = {leaf: int(mask.sum()) for leaf, mask in first.keep.items()}
        after, total = program.cost.at(widths, peak=True), program.cost.at({}, peak=True)
        assert all(getattr(after, name) <= limit for name, limit in budget.limits(total).items())
        if budget.ratio is not None:
            sizes = [group.size for group in program.structure.groups]
            assert sum(kept(program, first)) <= sum(sizes) - int(0.4 * sum(sizes))
        for group in program.structure.groups:
            assert first.count(group.leaf) >= 1  # type: ignore[operator]


def test_what_is_sensitive_stays_and_scores_order_the_positions() -> None:
    program = analyse(chain(20, 20))
    first, second = program.structure.groups
    scores = {first.leaf: np.arange(20.0), second.leaf: np.arange(20.0)[::-1]}
    curves = measured(program, (5.0, 10.0, 20.0, 40.0), (0.01, 0.02, 0.03, 0.04))
    selection = choose(program.structure, scores, Budget(ratio=0.4), None, program.cost, curves)
    assert kept(program, selection) == [20, 4]
    assert np.flatnonzero(selection.mask(second.leaf)).tolist() == [0, 1, 2, 3]


def test_nothing_goes_that_was_not_measured() -> None:
    program = analyse(chain(20, 20, 20))
    curves = measured(program, (5.0, 10.0, 20.0, 40.0))
    selection = choose(program.structure, program.scores(), Budget(ratio=0.3), None, program.cost, curves)
    assert kept(program, selection) == [2, 20, 20]
    with pytest.raises(TargetError, match=r"ratio 0\.5 is out of reach: .* remove 0\.3 of all positions"):
        choose(program.structure, program.scores(), Budget(ratio=0.5), None, program.cost, curves)
    with pytest.raises(TargetError, match="macs 10% is out of reach"):
        choose(program.structure, program.scores(), Budget(macs=parse_amount("10%")), None, program.cost, curves)


def test_scores_that_are_losses_add_up() -> None:
    program = analyse(chain(20, 20))
    first, second = program.structure.groups
    scores = {first.leaf: np.r_[np.zeros(5), np.full(15, 9.0)], second.leaf: np.linspace(0, 4, 20)[::-1]}
    budget, losses = Budget(ratio=0.4), Constraints(scope="global", normalizer="losses")
    selection = choose(program.structure, scores, budget, losses, program.cost)
    assert kept(program, selection) == [15, 9]
    assert np.flatnonzero(selection.mask(second.leaf)).tolist() == list(range(9))
    # their unit does not matter, as long as it is one for all groups
    scaled = {leaf: 1000 * own for leaf, own in scores.items()}
    assert kept(program, choose(program.structure, scaled, budget, losses, program.cost)) == [15, 9]


def test_local_shares_do_not_depend_on_losses() -> None:
    program = analyse(chain(20, 20))
    selection = choose(
        program.structure, program.scores(), Budget(ratio=0.4), Constraints(normalizer="losses"), program.cost
    )
    assert kept(program, selection) == [12, 12]


def test_measured_and_scored_losses_count_alike() -> None:
    program = analyse(chain(20, 20, 20))
    first, second, third = program.structure.groups
    rising = np.linspace(0.0, 1.0, 20)
    scores = {first.leaf: 100 * rising, second.leaf: rising, third.leaf: 100 * rising}
    low, high = (0.1, 0.2, 0.4, 0.8), (10.0, 20.0, 40.0, 80.0)
    curves = measured(program, low, low, high)
    budget = Budget(ratio=0.3)

    def left(curves: Curves | None, normalizer: str) -> list[int]:
        constraints = Constraints(scope="global", normalizer=normalizer)
        return kept(program, choose(program.structure, scores, budget, constraints, program.cost, curves))

    measured_alone, scored_alone, both = left(curves, "none"), left(None, "losses"), left(curves, "losses")
    assert measured_alone[2] == 20
    assert sum(measured_alone[:2]) == 22
    assert scored_alone[1] < scored_alone[0] == scored_alone[2]
    assert both[1] < both[0]
    assert both[1] < both[2]
    assert sum(both) == 42
    larger = Curves(tuple(Curve(c.groups, c.removed, tuple(7 * x for x in c.loss)) for c in curves.curves), curves.mark)
    assert left(larger, "losses") == both


def test_groups_measured_together_share_the_loss_by_size() -> None:
    program = analyse(chain(20, 60))
    first, second = program.structure.groups
    curves = Curves((Curve({"a0": 20, "a1": 60}, (0.5,), (4.0,)),), structure_mark(program.structure), {})
    for group, share in ((first, 1.0), (second, 3.0)):
        curve = curves.of([group])
        assert curve is not None
        np.testing.assert_allclose(curve.at(np.array([0, 0.25, 0.5])), [0, share / 2, share])


def test_a_loss_that_falls_is_taken_for_noise() -> None:
    np.testing.assert_allclose(Curve({}, (0.2, 0.4, 0.6), (1.0, -0.5, 2.0)).at(np.array([0.2, 0.4, 0.5])), [1, 1, 1.5])


def test_ratios_and_exclusions_hold_beside_curves() -> None:
    program = analyse(chain(20, 20, 20))
    curves = measured(program, *[(1.0, 2.0, 4.0, 8.0)] * 3)
    names = [group.name for group in program.structure.groups]
    constraints = Constraints(ratios={names[0]: 0.8}, exclude=[names[1]])
    selection = choose(program.structure, program.scores(), Budget(ratio=0.5), constraints, program.cost, curves)
    assert kept(program, selection) == [4, 20, 10]


def test_files_hold_what_was_saved(tmp_path: Path) -> None:
    program = analyse(chain(8, 8))
    curves = measured(program, (1.0, 2.0, 3.0, 4.0))
    curves.save(tmp_path / "c.json")
    assert Curves.load(tmp_path / "c.json") == curves
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no sensitivity curves \(no 'format'\)"):
        Curves.load(tmp_path / "other.json")
    with pytest.raises(ModelError, match="cannot be read"):
        Curves.load(tmp_path / "none.json")


def test_curves_of_another_network_and_a_local_scope_are_refused() -> None:
    program, other = analyse(chain(8, 8)), analyse(chain(8, 9))
    curves = measured(other, (1.0, 2.0, 3.0, 4.0))
    with pytest.raises(UsageError, match="measured on a network with other groups"):
        choose(program.structure, program.scores(), Budget(ratio=0.5), None, None, curves)
    own = measured(program, (1.0, 2.0, 3.0, 4.0))
    with pytest.raises(UsageError, match="scope local"):
        choose(program.structure, program.scores(), Budget(ratio=0.5), Constraints(scope="local"), None, own)
