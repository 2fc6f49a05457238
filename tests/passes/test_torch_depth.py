from __future__ import annotations

import pytest

from graphprune.passes import Context, Depth, Verify
from graphprune.passes.base import Report
from graphprune.passes.depth import find_blocks

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


def ready() -> Context:
    return Context(reports=[("canonicalize", Report(False))])


def block(width: int, inplace: bool) -> object:
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(width, width, 3, padding=1)
            self.n = nn.BatchNorm2d(width)
            self.b = nn.Conv2d(width, width, 1)

        def forward(self, x: object) -> object:
            return torch.nn.functional.relu(x + self.b(self.n(self.a(x)).relu_()), inplace=inplace)

    return Block()


def program(inplace: bool = False, train: bool = False) -> object:
    from graphprune.frontends.torch_program import capture

    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1), block(8, inplace), block(8, inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    return capture(module.train(train), (torch.randn(2, 3, 6, 6),))


@pytest.mark.parametrize("criterion", ["magnitude", "influence"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_removed_block_equals_a_silent_one(criterion: str, train: bool, inplace: bool) -> None:
    slim = program(inplace, train)
    size = len(slim.module.state_dict())  # type: ignore[attr-defined]
    context = ready()
    report = Depth(blocks=1, criterion=criterion)(slim, context)  # type: ignore[arg-type]
    assert report.counts == {"blocks": 1}
    Verify()(slim, context)  # type: ignore[arg-type]
    (proof,) = context.data["verify"]  # type: ignore[attr-defined]
    assert proof.ok
    assert proof.visible_ok
    assert len(slim.module.state_dict()) == size - 9  # type: ignore[attr-defined]
    assert slim.module(torch.randn(2, 3, 6, 6)).shape == (2, 2)  # type: ignore[attr-defined]


def test_what_enters_may_not_be_written_to_by_the_branch() -> None:
    from graphprune.frontends.torch_program import capture

    class Writes(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: object) -> object:
            x = self.first(x)
            return x + self.inner(x.view(4, 2).relu_().view(2, 4))

    found = capture(Writes().eval(), (torch.randn(2, 4),))
    assert find_blocks(found, found.read()) == []


def test_blocks_that_follow_each_other() -> None:
    slim = program()
    context = ready()
    Depth(blocks=2)(slim, context)  # type: ignore[arg-type]
    Verify()(slim, context)  # type: ignore[arg-type]
    assert not any(name.startswith(("1.", "2.")) for name in slim.module.state_dict())  # type: ignore[attr-defined]
