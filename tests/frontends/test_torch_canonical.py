"""Exported graphs in canonical form: what they compute stays, and what they leave implicit is spelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch_models import program, random_selection  # noqa: E402

from graphprune.frontends.torch_calls import names_of  # noqa: E402
from graphprune.frontends.torch_program import TorchProgram, capture  # noqa: E402

pytestmark = pytest.mark.torch


class Body(nn.Module):
    """A linear layer, a body, and a linear layer on each of its results."""

    def __init__(self, body: Callable[[Tensor], Any], width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, width)
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(self.first(x))


def operators(captured: TorchProgram) -> Counter[str]:
    return Counter(names_of(node.target)[-1] for node in captured.module.graph.nodes if node.op == "call_function")


SPLITS: dict[str, Callable[[Tensor], Any]] = {
    "chunk": lambda x: x.chunk(5, -1),
    "split": lambda x: x.split(5, -1),
    "split_sizes": lambda x: x.split([5, 7], -1),
    "tensor_split": lambda x: x.tensor_split(5, -1),
    "tensor_split_indices": lambda x: x.tensor_split((5, 7), -1),
    "unsafe_chunk": lambda x: x.unsafe_chunk(5, -1),
    "hsplit": lambda x: x.hsplit([5, 7]),
    "vsplit": lambda x: x.vsplit(2),
    "dsplit": lambda x: x[None].dsplit(3),
}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_of_a_split_have_listed_sizes(name: str) -> None:
    module, x = Body(SPLITS[name]), torch.randn(4, 3)
    captured = program(module, x)
    found = operators(captured)
    assert found["aten.split_with_sizes"] == 1
    assert set(found) <= {"aten.linear", "aten.split_with_sizes", "_operator.getitem", "aten.unsqueeze"}
    for a, b in zip(captured.module(x), module(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("squeeze", "gone"),
    [
        (lambda x: x.squeeze(), [1, 3]),
        (lambda x: x.squeeze(1), [1]),
        (lambda x: x.squeeze(2), []),
        (lambda x: x.squeeze((-1, 2)), [3]),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_squeeze_names_what_goes(squeeze: Callable[[Tensor], Tensor], gone: list[int], dynamic: bool) -> None:
    module, x = Body(lambda y: squeeze(y[:, None, :, None]).exp()), torch.randn(4, 3)
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    captured = capture(module, (x,), dynamic_shapes=shapes)
    (node,) = (node for node in captured.module.graph.nodes if names_of(node.target)[-1] == "aten.squeeze")
    assert node.target is torch.ops.aten.squeeze.dims
    assert node.args[1] == gone
    x = torch.randn(5 if dynamic else 4, 3)
    assert torch.equal(captured.module(x), module(x))


def test_one_position_that_is_left_is_not_squeezed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 2, 1), nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.first(x).mean((2, 3), keepdim=True).squeeze())
            return y

    captured = program(Net(), torch.randn(4, 3, 5, 5))
    structure = captured.read()
    (group,) = structure.groups
    assert group.size == 2
    captured.write(structure, random_selection(structure, ratio=1.0))
    assert captured.module(torch.randn(4, 3, 5, 5)).shape == (4, 4)


def test_sizes_are_not_checked_and_data_is() -> None:
    def body(x: Tensor) -> Tensor:
        count = x[0, 0].int().abs().item()
        torch._check(count < 100)
        torch._check(x.shape[0] < 100)
        return x.to(torch.float64) + count

    captured = capture(Body(body), (torch.randn(4, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    found = operators(captured)
    assert "aten._assert_tensor_metadata" not in found
    assert found["aten._assert_scalar"]
    for node in captured.module.graph.nodes:
        if names_of(node.target)[-1] == "aten._assert_scalar":
            assert "u0" in str(node.args[0].meta["val"])
    assert not captured.read().undeclared


def test_strides_and_sizes_that_follow_are_not_spelled() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 6)
    y = graph.call_function(torch.ops.aten._reshape_alias.default, (x, [2, 2, 3], [6, 3, 1]))
    z = graph.call_function(torch.ops.aten.repeat_interleave.self_int, (y, 2, 1), {"output_size": 4})
    y.meta["val"], z.meta["val"] = torch.empty(2, 2, 3), torch.empty(2, 4, 3)
    graph.output(z)
    module = torch.fx.GraphModule({}, graph)

    from graphprune.frontends.torch_canonical import canonicalize

    sample = torch.randn(2, 6)
    before = module(sample)
    assert canonicalize(module)
    assert [node.target for node in module.graph.nodes][1] is torch.ops.aten.reshape.default
    assert z.kwargs["output_size"] is None
    assert torch.equal(module(sample), before)
    assert not canonicalize(module)


def test_nodes_are_not_called_like_stored_tensors() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.index = nn.Parameter(torch.randn(6, 4))
            self.mul = nn.ParameterList([nn.Parameter(torch.randn(6))])
            self.x = nn.Linear(3, 6)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x = self.x(x)[torch.arange(5)] * self.mul[0]
            return x @ self.index * y

    torch.manual_seed(0)
    module, given = Net(), (torch.randn(5, 3), torch.randn(5, 4))
    captured = program(module, *given)
    names = {name for name, _ in module.named_parameters()} | {"mul", "x"}
    for node in captured.module.graph.nodes:
        assert node.name not in names or (node.op, node.target) == ("get_attr", node.name)
    torch.testing.assert_close(captured.module(*given), module(*given))
    (group,) = captured.read().groups
    assert [str(place) for place in group.slices] == ["index:0", "mul.0:0", "x.weight:0", "x.bias:0"]
