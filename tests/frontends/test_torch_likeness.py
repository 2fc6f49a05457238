"""A module is only like a graph if it computes the same with other weights too, on inputs that the graph takes."""

from __future__ import annotations

import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphprune.frontends.torch_likeness import difference  # noqa: E402
from graphprune.frontends.torch_program import capture  # noqa: E402

pytestmark = pytest.mark.torch


class Scaled(nn.Module):
    """A factor that does nothing while the gate is shut."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.layer, self.gate, self.factor = nn.Linear(6, 6), nn.Parameter(torch.zeros(6)), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.gate * self.factor * self.layer(x)


class Looked(Scaled):
    """Takes indices, which in another order may be none of the table's."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.tables = nn.ModuleList([nn.Embedding(100, 6), nn.Embedding(2, 6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.tables[0](x[:, 0]) + self.tables[1](x[:, 1]))


class Overflowing(Scaled):
    """Is finite only for weights near its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (self.gate.abs().sum() - 0.4).relu().mul(1e38).mul(1e38)


class Open(Scaled):
    """Masks one of its results with infinity."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).masked_fill(torch.arange(6) == 2, float("-inf"))


def pair(kind: type[Scaled], factor: float) -> tuple[nn.Module, Any, Any]:
    """A module with another factor than its graph, and inputs; the same weights."""
    torch.manual_seed(0)
    one, other = kind().eval(), kind(factor).eval()
    other.load_state_dict(one.state_dict())
    x = torch.tensor([[90, 0], [80, 1]]) if kind is Looked else torch.randn(2, 6)
    return other, capture(one, (x,)).module, x


@pytest.mark.parametrize("kind", [Scaled, Looked, Overflowing, Open])
def test_a_number_that_weights_hide_is_seen(kind: type[Scaled]) -> None:
    module, graph, x = pair(kind, 1.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert difference(module, graph, (x,), {}) == ""
    assert difference(module, graph, (x,), {}, noise=False) == ""
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module, graph, x = pair(kind, 2.0)
    assert "with other weights" in difference(module, graph, (x,), {})


def test_what_can_never_be_compared_differs() -> None:
    class Nothing(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * float("nan")

    module, graph, x = pair(Nothing, 2.0)
    assert difference(module, graph, (x,), {}) == "its results are not finite on the example inputs with other weights"


def test_pythons_random_numbers_are_left_alone() -> None:
    module, graph, x = pair(Scaled, 1.0)
    random.seed(3)
    state = random.getstate()
    difference(module, graph, (x,), {})
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda x: x[:1], "result 0 has shape (1, 6) instead of (2, 6)"),
        (lambda x: (x, x), "2 results instead of 1"),
        (lambda x: x @ x, "RuntimeError: "),
        (lambda x: x * 1.01, "result 0 differs by"),
    ],
)
def test_other_results_are_told(other: Any, text: str) -> None:
    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1

    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return other(x)

    x = torch.ones(2, 6)
    found = difference(Other(), capture(Same(), (x,)).module, (x,), {})
    assert text in found
    assert "\n" not in found


def test_half_precision_may_differ_by_its_rounding() -> None:
    class Times(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() * self.factor

    x = torch.randn(8, 4).bfloat16()
    graph = capture(Times(1.0), (x,)).module
    assert difference(Times(1.003), graph, (x,), {}) == ""
    assert difference(Times(1.2), graph, (x,), {}) != ""


def test_inputs_are_not_written_to() -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1)

    x = torch.ones(2, 4)
    graph = capture(Adds(), (x.clone(),)).module
    assert difference(Adds(), graph, (x,), {}) == ""
    assert torch.equal(x, torch.ones(2, 4))
