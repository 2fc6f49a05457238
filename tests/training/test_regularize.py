"""Penalties over groups: against sums written out by hand, by their gradients, and by what training does with them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from graphprune.errors import ModelError, TargetError, UsageError  # noqa: E402
from graphprune.training import (  # noqa: E402
    Growth,
    batch_norm_penalty,
    group_lasso,
    group_norms,
    groups_of,
    growing_penalty,
    proximal_step,
    scaled_penalty,
    weakest,
)

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Net(nn.Module):
    """A convolution whose channels are read twice: by another one, and flattened by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.side = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(11 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = torch.cat([x, functional.relu(self.side(x))], dim=1)
        return self.head(x.view(-1, 11 * 16))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    module = Net()
    nn.init.uniform_(module.norm.weight, 0.5, 2)
    nn.init.normal_(module.norm.bias)
    return module


INPUTS = (torch.zeros(2, 3, 6, 6),)


def by_hand(net: Net) -> list[torch.Tensor]:
    """Squared norms of the two groups of :class:`Net`."""
    head = net.head.weight.square().sum(0).reshape(11, 16).sum(1)
    first = net.conv.weight.square().sum((1, 2, 3)) + net.norm.weight.square() + net.norm.bias.square()
    first = first + net.side.weight.square().sum((0, 2, 3)) + head[:6]
    return [first, net.side.weight.square().sum((1, 2, 3)) + net.side.bias.square() + head[6:]]


def test_norms_are_the_sums_over_what_goes_with_a_position(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    found = list(group_norms(groups, net).values())
    for norms, expected in zip(found, by_hand(net), strict=True):
        torch.testing.assert_close(norms, expected)
    elements = groups.elements.tolist()
    assert elements == [27 + 2 + 5 + 64] * 6 + [6 + 1 + 64] * 5


def test_gradients_are_those_of_the_sums(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    double = net.double()
    parameters = [double.get_parameter(name) for name in groups.parameters(double)]
    sizes = torch.tensor([98.0] * 6 + [71.0] * 5, dtype=torch.float64)
    wanted = torch.autograd.grad((sizes * torch.cat(by_hand(double))).sqrt().sum(), parameters)
    for found, expected in zip(torch.autograd.grad(group_lasso(groups, double, 1.0), parameters), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_lasso_of_the_shipped_network_is_the_one_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    train_digits = importlib.import_module("train_digits")
    model = train_digits.Digits()
    groups = groups_of(model, (torch.zeros(2, 1, 8, 8),))
    torch.testing.assert_close(group_lasso(groups, model, 1.0), train_digits.group_lasso(model))


def test_a_position_of_zeros_has_no_infinite_gradient(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    group_lasso(groups, net).backward()
    assert all(bool(net.get_parameter(name).grad.isfinite().all()) for name in groups.parameters(net))


def test_the_module_is_left_as_it_was(net: Net) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    groups_of(net, INPUTS)
    assert net.training
    assert net.norm.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_scaled_penalty_weighs_by_rank_within_the_group(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    expected = torch.zeros(())
    for s in by_hand(net):
        gamma = 2 ** (4 * (s.max() - s) / (s.max() - s.min()))
        assert gamma.min() == 1
        torch.testing.assert_close(gamma.max(), torch.tensor(16.0))
        expected = expected + (gamma.detach() * s).sum()
    found = scaled_penalty(groups, net, 1.0)
    torch.testing.assert_close(found, expected)
    gradient, wanted = (torch.autograd.grad(value, net.side.weight)[0] for value in (found, expected))
    torch.testing.assert_close(gradient, wanted)


def test_batch_norm_penalty_is_over_scales_only(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    torch.testing.assert_close(batch_norm_penalty(groups, net, 0.5), 0.5 * net.norm.weight.abs().sum())
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    assert batch_norm_penalty(groups_of(plain, (torch.zeros(1, 4),)), plain) == 0


def test_growing_penalty_grows_for_what_is_to_go(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    drop = weakest(groups, net, 0.5)
    assert [int(mask.sum()) for mask in drop.values()] == [3, 2]
    growth = Growth(drop, rate=0.25, every=2, limit=0.5)
    assert growing_penalty(groups, net, growth) == 0
    for _ in range(2):
        growth.step()
    expected = 0.25 / 2 * sum(s[mask].sum() for s, mask in zip(by_hand(net), drop.values(), strict=True))
    torch.testing.assert_close(growing_penalty(groups, net, growth), expected)
    assert not growth.finished
    for _ in range(10):
        growth.step()
    assert growth.finished
    assert growth.factor == 0.5
    again = Growth.from_state_dict(growth.state_dict())
    torch.testing.assert_close(growing_penalty(groups, net, again), 2 * expected)


def test_growth_narrows_to_some_positions(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    growth = Growth(rate=1.0, every=1, limit=1.0)
    growth.step()
    everything = growing_penalty(groups, net, growth)
    torch.testing.assert_close(everything, sum(s.sum() for s in by_hand(net)) / 2)
    growth.focus(weakest(groups, net, 0.3), limit=2.0)
    assert not growth.finished
    assert growing_penalty(groups, net, growth) < everything / 2


def test_proximal_step_is_the_group_soft_threshold(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    factors = [
        (1 - 0.1 * (size / s.detach()).sqrt()).clamp_min(0) for size, s in zip((98, 71), by_hand(net), strict=True)
    ]
    assert any(0 < float(factor) < 1 for factor in torch.cat(factors))
    proximal_step(groups, net, 0.1)
    first, second = factors
    both = torch.cat(factors).repeat_interleave(16)
    torch.testing.assert_close(net.conv.weight, before["conv.weight"] * first[:, None, None, None])
    torch.testing.assert_close(
        net.side.weight, before["side.weight"] * second[:, None, None, None] * first[:, None, None]
    )
    torch.testing.assert_close(net.head.weight, before["head.weight"] * both)
    torch.testing.assert_close(net.head.bias, before["head.bias"])
    proximal_step(groups, net, 1e6)
    assert net.conv.weight.count_nonzero() == 0
    assert net.head.bias.count_nonzero() > 0


def test_frozen_parameters_are_left_alone(net: Net) -> None:
    net.conv.weight.requires_grad_(False)
    groups = groups_of(net, INPUTS)
    proximal_step(groups, net, 1e6)
    assert net.conv.weight.count_nonzero() > 0
    assert net.side.weight.count_nonzero() == 0


def test_training_with_the_lasso_separates_positions(net: Net) -> None:
    """The positions that the task does not need shrink, so that norms lie further apart than without a penalty."""
    torch.manual_seed(1)
    inputs, targets = torch.randn(64, 3, 6, 6), torch.randint(4, (64,))
    groups = groups_of(net, INPUTS)

    def least_share(strength: float) -> float:
        model = Net()
        model.load_state_dict(net.state_dict())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            loss = functional.cross_entropy(model(inputs), targets) + group_lasso(groups, model, strength)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        norms = groups.squares(model).detach()
        return float(norms.min() / norms.max())

    assert least_share(3e-3) < 0.2 * least_share(0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_types_of_numbers(net: Net, dtype: torch.dtype) -> None:
    groups = groups_of(net, INPUTS)
    expected = group_lasso(groups, net)
    net.to(dtype)
    found = group_lasso(groups, net)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=0)  # 8 bits of a weight are lost in bfloat16
    found.backward()
    proximal_step(groups, net, 1e-3)
    assert net.conv.weight.dtype == dtype


def test_wrappers_are_looked_through(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    wrapped = nn.DataParallel(net)
    torch.testing.assert_close(group_lasso(groups, wrapped), group_lasso(groups, net))


def test_tied_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 6)
            self.head = nn.Linear(6, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(x))

    model = Tied()
    groups = groups_of(model, (torch.zeros(2, 3, dtype=torch.long),))
    (norms,) = (norms for norms in group_norms(groups, model).values() if len(norms) == 6)
    torch.testing.assert_close(norms, model.embed.weight.square().sum(0))


def test_another_module_is_refused(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    with pytest.raises(ModelError, match=r"no parameter 'conv\.weight'; .* call groups_of again"):
        group_lasso(groups, nn.Linear(3, 3))
    net.conv = nn.Conv2d(3, 5, 3, bias=False)
    with pytest.raises(ModelError, match=r"'conv\.weight' has shape .* call groups_of again"):
        group_lasso(groups, net)


def test_nothing_to_prune_is_said() -> None:
    with pytest.raises(TargetError, match="nothing to prune"):
        groups_of(nn.Linear(3, 3), (torch.zeros(1, 3),))


def test_usage_errors(net: Net) -> None:
    groups = groups_of(net, INPUTS)
    with pytest.raises(UsageError, match=r"ratio 1\.5 is out of range"):
        weakest(groups, net, 1.5)
    with pytest.raises(UsageError, match="one value for each of its 6 positions"):
        growing_penalty(groups, net, Growth({"a0": torch.ones(3, dtype=torch.bool)}))
