"""The main jobs on PyTorch modules, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import ModelError, TargetError, UsageError  # noqa: E402

pytestmark = pytest.mark.torch


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.norm(self.first(x)).relu())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


X = (torch.zeros(2, 3, 8, 8),)


def test_prune_leaves_the_module_alone_and_keeps_its_class(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = graphprune.prune(module, X, ratio=0.5)
    assert (result.status, result.verified, result.way) == ("pruned", True, "module")
    assert type(result.module) is Residual
    assert result.module.stem.out_channels == 8
    assert sum(p.numel() for p in result.module.parameters()) == result.params.after < result.params.before
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        for parameter in result.module.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_graph_way_and_report(module: nn.Module) -> None:
    result = graphprune.prune(module, X, ratio=0.5, way="graph")
    assert result.way == "graph"
    report = json.loads(json.dumps(result.report))
    assert report["params"]["after"] == sum(p.numel() for p in result.module.parameters())
    same = graphprune.prune(module, X, ratio=0.5)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(result.module.eval()(x), same.module.eval()(x))


def test_budgets_and_options(module: nn.Module) -> None:
    result = graphprune.prune(module, X, macs="50%", round_to=4, exclude="head.*", verify=False)
    assert result.macs.after <= 0.5 * result.macs.before
    assert result.verified is None
    assert result.module.stem.out_channels % 4 == 0
    with pytest.raises(TargetError):
        graphprune.prune(module, X, params="0.01%")


def test_inplace_and_optimizer(module: nn.Module) -> None:
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    result = graphprune.prune(module, X, ratio=0.5, inplace=True, optimizer=optimizer)
    assert module.stem.out_channels == 8
    (state,) = [result.optimizer.state[p] for p in [module.stem.weight]]
    assert state["exp_avg"].shape == module.stem.weight.shape


def test_plan_applies_again(module: nn.Module, tmp_path: Path) -> None:
    first = graphprune.prune(module, X, ratio=0.5, criterion="l2", plan_path=tmp_path / "plan.json")
    again = graphprune.Plan.load(tmp_path / "plan.json").apply(module, X)
    assert again.params.after == first.params.after
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(first.module(x), again.module(x))
    assert graphprune.verify(module, again.module, first.plan, X).ok


def test_save_load_and_onnx(module: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    result = graphprune.prune(module, X, ratio=0.5, output=tmp_path / "slim")
    x = torch.randn(2, 3, 8, 8)
    expected = result.module(x)
    torch.testing.assert_close(graphprune.load(tmp_path / "slim")(x), expected)
    torch.testing.assert_close(graphprune.load(tmp_path / "slim", Residual)(x), expected)


def test_inspect_on_meta() -> None:
    with torch.device("meta"):
        module, x = Residual(), torch.zeros(2, 3, 8, 8)
    found = graphprune.inspect(module, (x,))
    assert [group.size for group in found.structure.groups] == [16, 16, 16]
    assert found.ceiling.macs > 0.9
    with pytest.raises(ModelError, match="meta device"):
        graphprune.prune(module, (x,), ratio=0.5)


def test_wrappers_are_taken_off(module: nn.Module) -> None:
    result = graphprune.prune(nn.DataParallel(module), X, ratio=0.5)
    assert type(result.module) is Residual
    assert any("DataParallel" in note for note in result.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "example inputs"),
        (("slim.onnx",), "example inputs"),
        ((X, None, {"ratio": 0.5, "pipeline": "lossless"}), "no effect"),
        ((X, None, {"pipeline": "lossless"}), "ONNX models only"),
    ],
)
def test_usage_errors(module: nn.Module, arguments: tuple[object, ...], message: str) -> None:
    args, kwargs, options = (*arguments, None, None)[:3] if len(arguments) < 3 else arguments
    with pytest.raises(UsageError, match=message):
        graphprune.prune(module, args, kwargs, **(options or {"ratio": 0.5}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "50%"}, "not a number"),
        ({"units": {"channel": "x"}}, "not a ratio"),
        ({"ratio": 0.5, "way": "class"}, "way 'class'"),
        ({"ratio": 0.5, "optimizer": 3}, "not a torch.optim"),
        ({"ratio": 0.5, "output": "slim.onnx"}, "to_onnx"),
        ({"ratio": 0.5, "output": "slim", "plan_path": "slim/plan.json"}, "replaced as a whole"),
    ],
)
def test_options_that_make_no_sense(module: nn.Module, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graphprune.prune(module, X, **options)


def test_a_call_that_fails_leaves_the_module_alone(module: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for options in ({"plan_path": tmp_path / "no folder" / "plan.json"}, {"output": tmp_path / "file"}):
        with pytest.raises((UsageError, ModelError, OSError)):
            graphprune.prune(module, X, ratio=0.5, inplace=True, **options)
        assert module.stem.out_channels == 16
    assert graphprune.prune(module, X, ratio=0.5, inplace=True).module is module


def test_blocks_left_out_are_said_and_verified_again(module: nn.Module) -> None:
    result = graphprune.prune(module, X, pipeline="depth{blocks=1}, prune{ratio=0.5}")
    assert result.way == "graph"
    assert graphprune.verify(module, result.module, result.plan, X).ok


def test_a_traced_graph_and_an_exported_program(module: nn.Module) -> None:
    traced = graphprune.prune(torch.fx.symbolic_trace(module), X, ratio=0.5)
    exported = graphprune.prune(torch.export.export(module, X), ratio=0.5)
    own = graphprune.prune(module, X, ratio=0.5)
    assert traced.params == exported.params == own.params
    assert (traced.way, exported.way) == ("graph", "graph")


def test_what_cannot_be_exported() -> None:
    class Jumps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="cannot export Jumps"):
        graphprune.prune(Jumps(), (torch.randn(2, 3),), ratio=0.5)


def test_nan_weights_are_refused(module: nn.Module) -> None:
    with torch.no_grad():
        module.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"stem\.weight"):
        graphprune.prune(module, X, ratio=0.5)
