"""Modes of exported graphs."""

from __future__ import annotations

import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_models import program, random_selection  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import UsageError  # noqa: E402
from graphprune.frontends.torch_back import returned  # noqa: E402
from graphprune.frontends.torch_training import ROWS, is_training  # noqa: E402
from graphprune.passes import Context, SetTraining, parse_pipeline  # noqa: E402
from graphprune.passes.set_training import set_training  # noqa: E402

pytestmark = pytest.mark.torch


def test_rows_name_arguments_of_their_operators() -> None:
    for name, row in ROWS.items():
        packet = getattr(torch.ops.aten, name.removeprefix("aten."))
        names = [{argument.name for argument in getattr(packet, o)._schema.arguments} for o in packet.overloads()]
        assert any(row.argument in each for each in names), name
        assert row.needs is None or any(row.needs in each for each in names), name


class Everything(nn.Module):
    """What knows a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.tracked = nn.InstanceNorm2d(4, track_running_stats=True)
        self.untracked = nn.InstanceNorm2d(4)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.drop, self.drop2 = nn.Dropout(0.3), nn.Dropout2d(0.3)
        self.alpha, self.slope = nn.AlphaDropout(0.3), nn.RReLU()
        self.lstm = nn.LSTM(4, 5, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.batch(self.untracked(self.tracked(self.norm(self.conv(x)))))
        x = self.slope(self.alpha(self.drop2(self.drop(x))))
        x, _ = self.lstm(x.flatten(2).transpose(1, 2))
        return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.2 if self.training else 0.0)


def _inputs() -> torch.Tensor:
    return torch.randn(3, 2, 6, 6)


def test_evaluation_is_that_of_the_module() -> None:
    torch.manual_seed(0)
    module, inputs = Everything().train(), _inputs()
    step = program(module, inputs)
    assert is_training(step.module)
    assert SetTraining(mode=False)(step).modified
    assert not SetTraining(mode=False)(step).modified
    module.eval()
    for _ in range(2):
        torch.testing.assert_close(step.module(inputs), module(inputs))
    assert step.module.norm.num_batches_tracked == 0


def test_training_comes_back() -> None:
    torch.manual_seed(0)
    step = program(Everything().train(), _inputs())
    text = str(step.module.graph)
    assert set_training(step.module, False)
    assert str(step.module.graph) != text
    assert set_training(step.module, True)
    calls = [node.target for node in step.module.graph.nodes if node.op == "call_function"]
    assert calls.count(torch.ops.aten.add_.Tensor) == 1  # the counter of batches
    assert [node.args[4] for node in step.module.graph.nodes if str(node.name).startswith("scaled_dot")] == [0.2]


def test_training_from_evaluation() -> None:
    torch.manual_seed(0)
    step, inputs = program(Everything().eval(), _inputs()), _inputs()
    before = step.module(inputs)
    assert torch.equal(step.module(inputs), before)
    SetTraining()(step.module)
    assert not torch.equal(step.module(inputs), step.module(inputs))
    assert step.module.norm.num_batches_tracked == 2


def test_nested_graphs_are_switched() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.drop(x + 1)

    step = program(Nested().train(), torch.ones(100))
    assert (step.module(torch.ones(100)) == 0).any()
    assert set_training(step.module, False)
    assert torch.equal(step.module(torch.ones(100)), torch.full((100,), 2.0))


class AlwaysDrops(nn.Module):
    """One dropout that is always on, and one that knows its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.drop = nn.Linear(8, 16), nn.Linear(16, 64), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.drop(self.outer(self.inner(x))), functional.dropout(x + 1, 0.5)


def test_what_is_always_on_is_no_matter_of_modes() -> None:
    step = program(AlwaysDrops().eval(), torch.ones(4, 8))
    assert not step.training
    for mode in (True, False):
        SetTraining(mode)(step)
        assert step.training is mode
        knows, always = step.module(torch.ones(4, 8))
        assert bool((knows == 0).any()) is mode
        assert bool((always == 0).any())


@pytest.mark.parametrize("way", ["auto", "graph"])
@pytest.mark.parametrize("mode", [True, False])
def test_what_comes_back_is_in_the_mode_that_was_set(mode: bool, way: str) -> None:
    torch.manual_seed(0)
    source, x = AlwaysDrops().train(not mode), torch.ones(4, 8)
    before = program(source, x)
    structure = before.read()
    slim = before.clone()
    slim.write(structure, selection := random_selection(structure))
    SetTraining(mode)(slim)
    back = returned(before, slim, structure, selection, way=way)  # type: ignore[arg-type]
    assert back.way == ("module" if way == "auto" else "graph")
    for switched in (mode, not mode, mode):
        assert back.module.training is switched
        assert bool((back.module(x)[0] == 0).any()) is switched
        if source.training is False:
            assert bool((back.module(x)[1] == 0).any())
        back.module.train(not switched)
    assert source.training is not mode


@pytest.mark.parametrize("pipeline", ["set-training, prune{ratio=0.5}", "prune{ratio=0.5}, set-training"])
def test_a_result_is_in_the_mode_that_a_pipeline_set(pipeline: str) -> None:
    x = torch.ones(4, 8)
    module = graphprune.prune(AlwaysDrops().eval(), (x,), pipeline=pipeline).module
    assert module.training
    assert not torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(module.eval()(x)[0], module(x)[0])


def test_it_has_a_name_in_pipelines() -> None:
    (step,) = parse_pipeline("set-training{mode=false}")
    assert step == SetTraining(mode=False)


def test_onnx_models_have_no_mode() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="g"), ir_version=10)
    with pytest.raises(UsageError, match="PyTorch programs only"):
        SetTraining().run(model, Context())
