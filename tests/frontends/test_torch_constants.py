"""Which tensors of a PyTorch program are constants, and that index tables among them select channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch_models import program  # noqa: E402

from graphprune.selection import Selection  # noqa: E402

pytestmark = pytest.mark.torch

ORDER = [3, 1, 0, 5, 2, 4]


class Picked(nn.Module):
    """Channels between two layers are picked by an index that ``make`` makes."""

    def __init__(self, make: Callable[[nn.Module], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 4)
        self.register_buffer("order", torch.tensor(ORDER))
        self.register_buffer("table", torch.tensor([[0, 0, 0], [1, 2, 3]]))
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x)[:, self.make(self)])
        return y


CONSTANT: dict[str, Callable[[nn.Module], Tensor]] = {
    "buffer": lambda self: self.order,
    "list": lambda self: torch.tensor(ORDER),
    "negative": lambda self: self.order - 6,
    "made": lambda self: torch.arange(6).view(2, 3).t().reshape(-1),
    "part of a buffer": lambda self: torch.cat([self.table[1], torch.arange(3)]),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_positions_select_channels(name: str) -> None:
    torch.manual_seed(0)
    module, x = Picked(CONSTANT[name]), torch.randn(5, 3)
    captured = program(module, x)
    structure = captured.read()
    axis = structure.axis("first.weight", 0)
    leaves = structure.leaves(axis)
    assert not any(leaf.pinned for leaf in leaves)
    keep = {leaf: np.zeros(leaf.size, bool) for leaf in (leaves[0], leaves[-1]) if len(leaves) > 2}
    selection = Selection(structure.space, keep)
    gone = ~selection.mask(axis)
    assert 2 <= np.count_nonzero(gone) < 6
    slim = captured.clone()
    slim.write(structure, selection)
    with torch.no_grad():
        module.first.weight[torch.from_numpy(gone)] = 0
        module.first.bias[torch.from_numpy(gone)] = 0
    torch.testing.assert_close(slim.module(x), module(x))


def written(self: nn.Module) -> Tensor:
    self.order[0] = 4
    return self.order


def written_by_a_view(self: nn.Module) -> Tensor:
    made = torch.arange(6)
    made.view(2, 3)[0].copy_(torch.tensor([2, 1, 0]))
    return made


def grown(self: nn.Module) -> Tensor:
    made = torch.arange(6) * 0
    made += 2
    return made


def drawn(self: nn.Module) -> Tensor:
    return torch.randperm(6)


@pytest.mark.parametrize("make", [written, written_by_a_view, grown, drawn])
def test_what_is_written_to_or_drawn_is_no_constant(make: Callable[[nn.Module], Tensor]) -> None:
    captured = program(Picked(make), torch.randn(5, 3))
    structure = captured.read()
    axis = structure.axis("first.weight", 0)
    assert all(leaf.pinned for leaf in structure.leaves(axis))
