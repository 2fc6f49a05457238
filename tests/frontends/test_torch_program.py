"""What is captured of a module computes what the module does, on any inputs; what cannot be captured says why."""

from __future__ import annotations

import copy
import dataclasses
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import ModelError  # noqa: E402
from graphprune.frontends.torch_program import capture  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Pair = namedtuple("Pair", "first second")


class Two(nn.Module):
    """Two inputs that play different parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 4)

    def one(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(x).relu())

    def forward(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return self.one(p) + 2 * self.one(q)


class OfPair(Two):
    def forward(self, pair: Any) -> Any:
        return Pair(super().forward(pair.first, pair.second), pair.second)


class OfWeight(Two):
    def forward(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return self.one(p) + nn.functional.linear(p, q)


def same(found: Any, expected: Any) -> None:
    for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b)


def _attention() -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(2, 5, 16)
    return nn.MultiheadAttention(16, 4, batch_first=True), (x, x, x)


def _transformer() -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(2, 5, 16)
    return nn.Transformer(16, 2, 1, 1, 32, batch_first=True), (x, x)


def _twice() -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(2, 8)
    return Two(), (x, x)


def _views() -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(4, 8)
    return Two(), (x[:2], x[1:3])


def _pair() -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(2, 8)
    return OfPair(), (Pair(x, x),)


def _weight() -> tuple[nn.Module, tuple[Any, ...]]:
    module = OfWeight()
    return module, (torch.randn(2, 8), nn.Parameter(torch.randn(4, 8)))


def _its_own_weight() -> tuple[nn.Module, tuple[Any, ...]]:
    module = OfWeight()
    module.outer = nn.Linear(16, 16)
    return module, (torch.randn(2, 8), module.inner.weight)


@pytest.mark.parametrize("way", ["auto", "graph"])
@pytest.mark.parametrize("make", [_attention, _transformer, _twice, _views, _pair, _weight, _its_own_weight])
def test_a_tensor_given_twice_is_two_inputs(make: Callable[[], tuple[nn.Module, tuple[Any, ...]]], way: str) -> None:
    torch.manual_seed(0)
    module, args = make()
    module.eval()
    apart = pytree.tree_map_only(torch.Tensor, lambda x: torch.randn(x.shape), args)
    program = capture(module, args)
    same(program.module(*apart), module(*apart))
    result = graphprune.prune(module, args, ratio=0.4, way=way)
    assert result.verified
    separate = graphprune.prune(module, apart, ratio=0.4, way="graph")
    same(result.module(*apart), separate.module(*apart))


def test_inputs_that_are_the_same_stay_as_they_are() -> None:
    x, y = torch.randn(2, 8), torch.randn(2, 8)
    program = capture(Two(), (x, y))
    assert program.args[0] is x
    assert program.args[1] is y


def test_a_program_exported_on_one_tensor_says_so() -> None:
    x = torch.randn(2, 8)
    merged = torch.export.export(Two().eval(), (x, x))
    (note,) = capture(merged).notes
    assert "'p' and 'q' were one tensor" in note
    assert capture(torch.export.export(Two().eval(), (x, x.clone()))).notes == ()


class Traces(nn.Module):
    """Leaves something behind in each way that a forward pass can."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 4)
        self.calls, self.seen, self.options = 0, [0], {"state": {"calls": 0}}
        self.last: torch.Tensor | None = None
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.options["state"]["calls"] += 1
        self.count += 1
        self.last = self.outer(self.inner(x).relu())
        return self.last


def test_pruning_leaves_no_trace() -> None:
    module, x = Traces().eval(), torch.randn(2, 8)
    module(x)
    module(x)
    last = module.last
    result = graphprune.prune(module, (x,), ratio=0.5)
    assert (result.way, result.verified) == ("module", True)
    assert {patch.attribute for patch in result.patches} == {("out_features",), ("in_features",)}
    for each in (module, result.module):
        assert (each.calls, each.seen, each.options, float(each.count)) == (2, [0, 1, 2], {"state": {"calls": 2}}, 2)
    assert module.last is last


class Cached(nn.Module):
    """Keeps what it made of its weights while it evaluates, as some vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.bias = nn.Linear(8, 16), nn.Linear(16, 4), nn.Parameter(torch.randn(16))
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> Cached:
        super().train(mode)
        if mode:
            self.cache = {}
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            bias = self.bias * 2
        else:
            bias = self.cache.setdefault("bias", self.bias * 2)
        return self.outer((self.inner(x) + bias).relu())


@pytest.mark.parametrize("ran", [False, True])
def test_what_is_cached_for_evaluation_is_no_constant(ran: bool) -> None:
    module, x = Cached().eval(), torch.randn(2, 8)
    if ran:
        module(x)
    kept = dict(module.cache)
    result = graphprune.prune(module, (x,), ratio=0.5)
    assert (result.way, result.verified) == ("module", True)
    assert result.module.bias.shape == (8,)
    assert module.cache == kept
    assert set(result.model.module.state_dict()) == set(module.state_dict())


class Merging(nn.Module):
    """Adds one weight to another while it evaluates, as adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.update = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(6, 8))
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -self.update.data if mode else self.update.data
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight if self.merged else self.weight + self.update)


def test_weights_that_a_mode_changes_are_not_changed() -> None:
    module = Merging().eval()
    before, x = copy.deepcopy(module.state_dict()), torch.randn(2, 8)
    program = capture(module, (x,))
    assert module.merged
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.testing.assert_close(program.module(x), module(x))


def test_a_module_without_values_takes_inputs_with_values() -> None:
    with torch.device("meta"):
        module = Two().eval()
    inspection = graphprune.inspect(module, (torch.randn(2, 8), torch.randn(2, 8)))
    assert inspection.ceiling.params > 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.weight", "nan", "parameter '0.weight' holds NaN"),
        ("0.weight", "inf", "parameter '0.weight' holds infinity"),
        ("1.running_var", "nan", "buffer '1.running_var' holds NaN"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(name: str, value: str, message: str) -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)).eval()
    module.state_dict()[name].view(-1)[0] = float(value)
    with pytest.raises(ModelError, match=message):
        capture(module, (torch.randn(2, 8),))


def test_masks_may_be_infinite() -> None:
    class Masked(Two):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((16,), float("-inf")).index_fill(0, torch.arange(8), 0.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.outer(torch.softmax(self.inner(x) + self.mask, -1))

    assert capture(Masked().eval(), (torch.randn(2, 8),)).module is not None


@dataclasses.dataclass
class Unregistered:
    x: torch.Tensor


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


class TakesUnregistered(nn.Module):
    def forward(self, given: Unregistered) -> torch.Tensor:
        return given.x + 1


class GivesUnregistered(nn.Module):
    def forward(self, x: torch.Tensor) -> Unregistered:
        return Unregistered(x + 1)


class Distributed(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        class DTensor(nn.Parameter):
            pass

        self.weight = DTensor(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (Branches, torch.ones(3), "torch.cond"),
        (TakesUnregistered, Unregistered(torch.ones(3)), "register the class of its input"),
        (GivesUnregistered, torch.ones(3), "register the class of its result"),
        (lambda: nn.Linear(3, 3), {"input": torch.ones(3)}, "kwargs="),
        (lambda: nn.Linear(3, 3), torch.ones(3).numpy(), "torch.from_numpy"),
        (lambda: nn.Bilinear(3, 3, 2), torch.ones(3), "an example for each argument"),
        (lambda: nn.LazyLinear(3), torch.ones(3), "run it once"),
        (lambda: torch.jit.script(nn.Linear(3, 3)), torch.ones(3), "give the nn.Module that it was made of"),
        (
            lambda: nn.Sequential(torch.jit.script(nn.Linear(3, 3))),
            torch.ones(3),
            "'0' of Sequential is a ScriptModule",
        ),
        (Distributed, torch.ones(3), "gather the weights"),
        (lambda: nn.Linear(3, 3), torch.ones(0, 3), "a batch of at least one"),
        (lambda: nn.Linear(3, 0), torch.ones(2, 3), "no result holds a number"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_captured_says_why(
    make: Callable[[], nn.Module], given: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    module = make()
    with pytest.raises(ModelError) as caught:
        capture(module, (given,))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
