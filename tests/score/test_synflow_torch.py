"""SynFlow's closed form against PyTorch's own derivatives of the network of absolute weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_models import program  # noqa: E402

from graphprune.score import Evidence, criterion  # noqa: E402
from graphprune.score.positions import Positions  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


class Net(nn.Module):
    """A residual stream, an inverted bottleneck, a grouped convolution, and a linear layer on what is flattened."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.stem, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.expand, self.depth, self.project = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 6, 1)
        self.grouped, self.head = nn.Conv2d(6, 4, 1, groups=2), nn.Linear(10 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.stem(x)))
        x = x + self.project(self.activation(self.depth(self.activation(self.expand(x)))))
        return self.head(torch.cat([self.grouped(x), x], 1).flatten(1))


def test_shares_of_the_flow_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    net = Net(nn.SiLU()).eval()
    nn.init.uniform_(net.norm.weight, -2, 2)
    nn.init.uniform_(net.norm.running_var, 0.5, 2)
    inputs = torch.zeros(1, 3, 4, 4)
    captured = program(net, inputs)
    structure = captured.read()
    found = criterion("synflow").score(Evidence(structure, captured.weights()))

    linear = copy.deepcopy(net).double()
    linear.activation = nn.Identity()
    for name, weight in linear.named_parameters():
        weight.data = weight.data.abs() if weight.ndim > 1 or name == "norm.weight" else torch.zeros_like(weight)
    flow = linear(torch.ones_like(inputs, dtype=torch.float64)).sum()
    flow.backward()

    positions = Positions(structure)
    expected = np.zeros(positions.total)
    for name, weight in linear.named_parameters():
        if weight.ndim > 1:
            shares = (weight * weight.grad / flow).detach()
            for dim, axis in enumerate(structure.tensors[name] or ()):
                sums = shares.movedim(dim, 0).flatten(1).sum(1).numpy()
                expected += positions.places(axis).gather(sums, positions.total)
    assert expected.min() > 0
    np.testing.assert_allclose(positions.join(found), expected, rtol=1e-5)
