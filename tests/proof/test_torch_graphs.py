"""Graphs with symbolic sizes, nested graphs and state: the masks find their places there too."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch_models import random_selection  # noqa: E402

from graphprune.frontends.torch_program import capture  # noqa: E402
from graphprune.proof.torch_graphs import copied, has_half, widened  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402
from graphprune.proof.torch_run import leaves_of, run  # noqa: E402

pytestmark = pytest.mark.torch


class Flat(nn.Module):
    """Sums and statistics along an axis that holds channels and space."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        flat = x.flatten(1)
        y: Tensor = self.last(x + flat.softmax(1).reshape(x.shape)) + flat.sum(1)[:, None, None, None]
        return y


class Pair(nn.Module):
    """Two layers, and what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 3)
        self.register_buffer("cache", torch.zeros(3, 4, 8))
        self.cache: Tensor

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        y: Tensor = self.last(self.between(self.first(x), *more))
        return y

    def between(self, x: Tensor) -> Tensor:
        return x


class NoGradient(Pair):
    def between(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.softmax(-1).cumsum(-1)


class Branches(Pair):
    def between(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        y: Tensor = torch.cond(condition, lambda x: x.softmax(-1), lambda x: x.cumsum(-1), (x,))
        return y


class Autocast(Pair):
    def between(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.nn.functional.linear(x, self.last.weight, None) @ self.last.weight + x.float()


class Cache(Pair):
    def between(self, x: Tensor, at: Tensor) -> Tensor:  # type: ignore[override]
        self.cache.index_copy_(1, at, x.unsqueeze(1))
        return self.cache.cumsum(-1).sum(1)


ROW = torch.linspace(-1, 1, 18).reshape(3, 6)
CASES: dict[str, tuple[type[nn.Module], tuple[Any, ...], Any]] = {
    "fixed": (Flat, (torch.ones(3, 3, 8, 8),), None),
    "any batch": (Flat, (torch.ones(3, 3, 8, 8),), {"x": {0: torch.export.Dim("batch", min=2)}}),
    "any height": (Flat, (torch.ones(3, 3, 8, 8),), {"x": {2: torch.export.Dim("height", min=4)}}),
    "a region without gradients": (NoGradient, (ROW,), None),
    "branches": (Branches, (ROW, torch.tensor(True)), None),
    "autocast": (Autocast, (ROW,), None),
    "a cache": (Cache, (ROW, torch.tensor([1])), None),
}


@pytest.mark.parametrize(("make", "args", "dims"), CASES.values(), ids=CASES.keys())
def test_graphs(make: type[nn.Module], args: tuple[Any, ...], dims: Any) -> None:
    torch.manual_seed(0)
    program = capture(make(), args, dynamic_shapes=dims)
    structure = program.read()
    selection = random_selection(structure)
    slim = program.clone()
    assert slim.write(structure, selection)
    result = verify_program(program, slim, structure, selection, runs=4)
    assert result.ok, result.reason
    assert result.runs == 4


def test_a_run_leaves_state_and_inputs_alone() -> None:
    program = capture(Cache(), (ROW, torch.tensor([1])))
    run(program.module, leaves_of(program.module, program.args, {}))
    assert not program.module.cache.any()


def test_a_wider_copy_shares_weights_and_computes_in_double() -> None:
    torch.manual_seed(0)
    module = Autocast().eval()
    program = capture(module, (ROW,))
    leaves = leaves_of(program.module, program.args, {})
    assert has_half(program.module, leaves)
    assert not has_half(capture(Pair(), (ROW,)).module, leaves)
    wide = widened(copied(program.module), torch.float64)
    assert wide.first.weight is program.module.first.weight
    (result,) = run(wide, [ROW.double()], lambda name, tensor: tensor.double(), dtype=torch.float64)
    (own,) = run(program.module, leaves)
    assert result.dtype is torch.float64
    assert torch.allclose(result.float(), own, atol=1e-2)
    assert torch.get_default_dtype() is torch.float32
