"""Regions and functions that nobody reads keep all that they touch; what is around them can be cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, fx, nn  # noqa: E402
from torch._higher_order_ops import scan, while_loop  # noqa: E402
from torch._higher_order_ops.map import map as map_rows  # noqa: E402
from torch.nn.functional import linear  # noqa: E402
from torch_models import program, random_selection  # noqa: E402

from graphprune.frontends.torch_reader import read  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402

pytestmark = pytest.mark.torch


class Net(nn.Module):
    """Two layers, a region, two layers."""

    def __init__(self, region: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8))
        self.inner, self.outer = nn.Linear(8, 5), nn.Linear(5, 8)
        self.after = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
        self.region = region

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.region(self, self.before(x)))
        return y


REGIONS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "scan": lambda net, x: scan(lambda c, y: (c + y, c * y), torch.zeros(8), x)[1],
    "while_loop": lambda net, x: while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2.0), (torch.tensor(0), x))[1],
    "map": lambda net, x: map_rows(lambda row: row.sin(), x),
    "vmap": lambda net, x: torch.vmap(lambda row: row.softmax(0) * 2)(x),
    "vmap of layers": lambda net, x: torch.vmap(
        lambda row: linear(linear(row, net.inner.weight, net.inner.bias), net.outer.weight)
    )(x),
}


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_keeps_what_it_touches(name: str) -> None:
    captured = program(Net(REGIONS[name]).requires_grad_(False), torch.randn(5, 4))
    structure = captured.read()
    assert not structure.undeclared
    groups = {str(group.slices[0]): group.size for group in structure.groups}
    assert groups.pop("before.0.weight:0") == 6
    assert groups.pop("after.0.weight:0") == 7
    assert name != "vmap of layers" or not groups
    selection = random_selection(structure)
    slim = captured.clone()
    slim.write(structure, selection)
    result = verify_program(captured, slim, structure, selection)
    assert result.ok, result.reason


def double(x: Tensor) -> Any:
    return 2 * x


def test_a_function_that_is_not_of_aten_keeps_what_it_touches() -> None:
    root = nn.Module()
    root.weight = nn.Parameter(torch.randn(6, 4))
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.get_attr("weight")
    y = graph.call_function(torch.ops.aten.linear.default, (x, w))
    graph.output(graph.call_function(torch.ops.aten.sum.default, (graph.call_function(double, (y,)),)))
    x.meta["val"], w.meta["val"], y.meta["val"] = torch.empty(2, 4), torch.empty(6, 4), torch.empty(2, 6)
    structure = read(fx.GraphModule(root, graph))
    assert not structure.groups
    assert structure.undeclared == {f"{__name__}.double": 1}
