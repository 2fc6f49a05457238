"""Pruning in rounds: every round removes what is still missing from its share of the original."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphprune.errors import UsageError  # noqa: E402
from graphprune.training import cubic, iterate  # noqa: E402

pytestmark = pytest.mark.torch

INPUTS = (torch.zeros(2, 5),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 37), nn.BatchNorm1d(37), nn.ReLU(), nn.Linear(37, 23), nn.ReLU(), nn.Dropout(), nn.Linear(23, 3)
    )


def widths(module: nn.Module) -> list[int]:
    state = module.state_dict()
    return [len(state["0.weight"]), len(state["3.weight"])]


def test_cubic_runs_from_start_to_end() -> None:
    ratios = [cubic(step, 0.1, 0.7, begin=5, steps=20) for step in range(40)]
    assert ratios[:6] == [0.1] * 6
    assert ratios[25:] == [0.7] * 15
    assert ratios == sorted(ratios)
    assert ratios[15] == pytest.approx(0.7 - 0.6 * 0.125)
    with pytest.raises(UsageError, match="steps 0 is out of range"):
        cubic(0, 0.0, 0.5, 0, 0)


@pytest.mark.parametrize("way", ["module", "graph"])
def test_rounds_are_shares_of_the_original(way: str) -> None:
    """Down to the position, however often the widths were rounded before."""
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ratios = [0.15, 0.15, 0.31, 0.5, 0.72]
    seen: list[int] = []

    def tune(module: nn.Module, number: int) -> None:
        assert not module.training
        seen.append(number)
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        module(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()

    shapes = ({0: torch.export.Dim("n", max=64)},)
    rounds = iterate(model, INPUTS, ratios, tune, way=way, dynamic_shapes=shapes)
    found = [widths(result.module) for result in rounds]
    assert found == [[n - math.floor(ratio * n) for n in (37, 23)] for ratio in ratios]
    assert seen == [0, 1, 2, 3, 4]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rounds_over_all_groups_together() -> None:
    found = [
        sum(widths(result.module))
        for result in iterate(network(), INPUTS, [0.2, 0.5, 0.6], lambda module, number: None, scope="global")
    ]
    assert found == [60 - math.floor(ratio * 60) for ratio in (0.2, 0.5, 0.6)]


def test_each_round_prunes_what_was_tuned() -> None:
    """Weights that tuning makes large survive the next round."""
    kept: list[torch.Tensor] = []

    def tune(module: nn.Module, number: int) -> None:
        if number == 0:
            with torch.no_grad():
                module.get_parameter("0.weight")[-4:] += 100
        kept.append(module.get_parameter("0.weight").detach().clone())

    list(iterate(network(), INPUTS, [0.2, 0.8], tune))
    assert torch.equal(kept[1][-4:], kept[0][-4:])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="must rise"):
        iterate(network(), INPUTS, [0.5, 0.2], lambda module, number: None)
    with pytest.raises(UsageError, match="must rise"):
        iterate(network(), INPUTS, [0.5, 1.0], lambda module, number: None)
    with pytest.raises(UsageError, match="iterate takes no macs"):
        iterate(network(), INPUTS, [0.5], lambda module, number: None, macs="50%")
