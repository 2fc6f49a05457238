"""The slim graph behaves like the module it came from."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_models import program  # noqa: E402
from torch_returned import give_back  # noqa: E402

from graphprune.frontends.torch_program import capture  # noqa: E402
from graphprune.frontends.torch_pruned import PrunedModule  # noqa: E402

pytestmark = pytest.mark.torch


def pruned(training: bool) -> tuple[PrunedModule, torch.Tensor]:
    """A residual network as a graph."""
    case = give_back("residual", way="graph", training=training)
    return case.module, case.inputs


@pytest.mark.parametrize("training", [False, True])
def test_modes(training: bool) -> None:
    module, inputs = pruned(training)
    assert module.training is training
    norm = module.get_submodule("blocks.0.norm")
    module.eval()
    before = norm.running_mean.clone(), norm.num_batches_tracked.clone()
    assert torch.equal(module(inputs), module(inputs))
    assert torch.equal(norm.running_mean, before[0])
    assert norm.num_batches_tracked == before[1]
    module.train()
    assert not torch.equal(module(inputs), module(inputs))
    assert not torch.equal(norm.running_mean, before[0])
    assert norm.num_batches_tracked == before[1] + 2
    module.eval()
    assert torch.equal(module(inputs), module(inputs))


def test_the_state_is_that_of_the_module() -> None:
    case = give_back("residual", way="graph")
    assert list(case.module.state_dict()) == [name for name in case.source.state_dict() if name != "offset"]
    assert "offset" in dict(case.module.named_buffers())


@pytest.mark.parametrize("training", [False, True])
def test_copies(training: bool) -> None:
    module, inputs = pruned(training)
    module.eval()
    copied = copy.deepcopy(module)
    assert type(copied).__mro__[1] is PrunedModule
    assert copied.training is False
    assert list(copied.state_dict()) == list(module.state_dict())
    assert torch.equal(copied(inputs), module(inputs))
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert next(module.parameters()).abs().sum() > 0
    assert copied.train().training
    with pytest.raises(ValueError, match="exported for"):
        copied(inputs[:2])


def test_a_state_dict_goes_around() -> None:
    module, inputs = pruned(False)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(inputs), module(inputs))


class Flagged(nn.Module):
    """Numbers and flags decide what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(
        self, xs: list[torch.Tensor], flag: bool = True, mask: torch.Tensor | None = None, *, scale: float = 2.0
    ) -> torch.Tensor:
        y = self.dropout(self.linear(xs[0] + xs[1])) * scale
        y = y if mask is None else y * mask
        return y if flag else -y


def flagged() -> tuple[PrunedModule, torch.Tensor]:
    """A graph of it, and an input."""
    x = torch.randn(2, 4)
    graph = program(Flagged().eval(), [x, x + 1], True, None, scale=3.0).detached().module
    return PrunedModule.of(graph, training=False), x


@pytest.mark.parametrize("made", ["at once", "copied", "pickled"])
def test_what_exporting_fixed_is_checked(made: str) -> None:
    module, x = flagged()
    if made != "at once":
        module = copy.deepcopy(module) if made == "copied" else pickle.loads(pickle.dumps(module))
    xs = [x, x]
    expected = module(xs, True, None, scale=3.0)
    assert torch.equal(module(scale=3, mask=None, flag=True, xs=xs), expected)
    wrong: list[tuple[list[Any], dict[str, Any], str]] = [
        (
            [xs, False, None],
            {"scale": 3.0},
            "'flag' was fixed at True when the graph was exported, and False was given",
        ),
        ([xs, 1, None], {"scale": 3.0}, "'flag' was fixed at True"),
        ([xs, True, x], {"scale": 3.0}, "'mask' was fixed at None when the graph was exported, and a Tensor was given"),
        ([xs], {"scale": 30.0, "mask": None, "flag": True}, "'scale' was fixed at 3.0"),
        ([[x, True], True, None], {"scale": 3.0}, "was a tensor when the graph was exported"),
        ([[x, x, x], True, None], {"scale": 3.0}, "the inputs hold 6 values"),
    ]
    for args, kwargs, message in wrong:
        with pytest.raises(ValueError, match=message):
            module(*args, **kwargs)
    with pytest.raises(TypeError, match="missing"):
        module(xs)


def test_a_compiler_sees_what_exporting_fixed() -> None:
    module, x = flagged()
    compiled = torch.compile(module, backend="eager")
    assert compiled([x, x], True, None, scale=3.0).shape == (2, 3)
    with pytest.raises(ValueError, match="'flag' was fixed at True"):
        compiled([x, x], False, None, scale=3.0)
    torch._dynamo.reset()


@pytest.mark.parametrize("training", [False, True])
def test_pickles(training: bool) -> None:
    module, inputs = pruned(training)
    module.eval()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for loaded in (torch.load(file, weights_only=False), pickle.loads(pickle.dumps(module))):
        assert isinstance(loaded, PrunedModule)
        assert loaded.training is False
        assert torch.equal(loaded(inputs), module(inputs))
        assert list(loaded.state_dict()) == list(module.state_dict())
        assert dict(loaded.named_buffers()).keys() == dict(module.named_buffers()).keys()
        assert not torch.equal(loaded.train()(inputs), loaded(inputs))
        with pytest.raises(ValueError, match="exported for"):
            loaded(inputs[:2])


def test_ties_outlive_pickles() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.a.bias.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    module = PrunedModule.of(program(Tied(), torch.randn(2, 4)).detached().module)
    loaded = pickle.loads(pickle.dumps(module))
    assert loaded.get_parameter("a.weight") is loaded.get_parameter("b.weight")
    trains = {name: each.requires_grad for name, each in module.named_parameters()}
    assert {name: each.requires_grad for name, each in loaded.named_parameters()} == trains
    assert not trains["a.bias"]


def test_it_can_be_exported_again() -> None:
    module, inputs = pruned(True)
    module.eval()
    again = torch.export.export(module, (inputs,)).module()
    torch.testing.assert_close(again(inputs), module(inputs))


def test_inputs_of_other_shapes_are_refused() -> None:
    module, inputs = pruned(False)
    with pytest.raises(ValueError, match=r"input 'x' has shape \(2, 3, 6, 6\)"):
        module(inputs[:2])


def test_dynamic_dimensions_are_free() -> None:
    batch = torch.export.Dim("batch")
    graph = capture(nn.Linear(3, 2), (torch.randn(4, 3),), dynamic_shapes=({0: batch},)).detached()
    module = PrunedModule.of(graph.module)
    assert module(torch.randn(7, 3)).shape == (7, 2)
    with pytest.raises(ValueError, match="exported for"):
        module(torch.randn(7, 4))


def test_dynamic_dimensions_that_the_code_fixes_are_not_free() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            assert y.shape[0] == 4
            return self.outer(y)

    captured = capture(Fixed(), (torch.randn(4, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    assert {axis.size for axis in captured.read().tensors["linear"]} == {4, 8}
    module = PrunedModule.of(captured.detached().module)
    assert module(torch.randn(4, 3)).shape == (4, 2)
    with pytest.raises(ValueError, match=r"input 'x' has shape \(5, 3\)"):
        module(torch.randn(5, 3))


def test_devices_in_calls_follow_the_module() -> None:
    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + torch.ones(3, device=x.device)

    module = PrunedModule.of(program(Made(), torch.randn(2, 3)).detached().module)
    module.to("meta")
    assert module(torch.randn(2, 3, device="meta")).device.type == "meta"


def test_what_is_always_on_stays_on() -> None:
    class Bayesian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = nn.Linear(50, 50), nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.linear(x)
            return functional.dropout(y, 0.5, training=True), self.dropout(y)

    inputs = torch.randn(4, 50)
    module = PrunedModule.of(program(Bayesian().eval(), inputs).detached().module, training=False)
    always, sometimes = module(inputs)
    assert (always == 0).any()
    assert not (sometimes == 0).any()
    always, sometimes = module.train()(inputs)
    assert (always == 0).any()
    assert (sometimes == 0).any()
    assert (module.eval()(inputs)[0] == 0).any()


def test_stochastic_depth_is_off_in_evaluation() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            if self.training:
                y = y * x.new_empty(x.shape[0], 1).bernoulli_(0.5).div_(0.5)
            return x + y

    source, inputs = Dropped().train(), torch.randn(64, 5)
    module = PrunedModule.of(program(source, inputs).detached().module, training=True)
    assert not torch.equal(module(inputs), module(inputs))
    torch.testing.assert_close(module.eval()(inputs), source.eval()(inputs))
    assert not torch.equal(module.train()(inputs), module(inputs))


def test_randomness_that_cannot_be_switched_off_is_said() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x) if self.training else x

    module = PrunedModule.of(program(Noisy().train(), torch.randn(3)).detached().module, training=True)
    with pytest.warns(UserWarning, match="draws random numbers in evaluation"):
        module.eval()
