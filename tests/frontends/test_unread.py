from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402

from graphprune.frontends.torch_program import capture  # noqa: E402


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(32, 12))
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x):
        return self.second(self.first(x) + self.table[: x.shape[1]])


class Split(nn.Module):
    """A fused weight that is read in two pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.randn(20, 6)), nn.Linear(10, 3)

    def forward(self, x):
        parts = [nn.functional.linear(x, self.weight[start : start + 10]) for start in (0, 10)]
        return self.last(parts[0] * parts[1])


def test_positions_beyond_the_example_are_kept() -> None:
    structure = capture(Positions(), (torch.randn(2, 7, 12),)).read()
    rows = structure.axis("table", 0)
    assert {pin.reason for pin in structure.pins(rows)} >= {"positions that nothing reads on these inputs"}
    assert not structure.free([rows])
    assert structure.free([structure.axis("table", 1)])


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(1, 32, 32, dtype=torch.bool).tril())
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x):
        length = x.shape[1]
        share = torch.where(self.mask[:, :length, :length], x @ x.transpose(1, 2), -1e4).softmax(-1)
        return self.second(share @ self.first(x))


def test_slices_of_slices_read_nothing_more() -> None:
    structure = capture(Masked(), (torch.randn(2, 7, 12),)).read()
    assert not structure.free(structure.tensors["mask"])
    assert structure.free([structure.axis("first.weight", 0)])


def test_pieces_that_are_read_one_by_one_stay_free() -> None:
    structure = capture(Split(), (torch.randn(2, 6),)).read()
    assert structure.free([structure.axis("weight", 0)])
