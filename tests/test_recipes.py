"""Recipes: what is done where nobody says how, from Python and the command line, and that it can be proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command_line import Run

import graphprune
from graphprune.errors import UsageError
from graphprune.models.reference import resnet18
from graphprune.passes import canonicalize
from graphprune.recipes import COMPENSATIONS, MADE_UP, RECIPES, calibrated, recipe_for, recovery
from graphprune.sample_inputs import random_inputs

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network as a file."""
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(resnet18(tiny=True), path)
    return path


@pytest.fixture(scope="module")
def images(model: Path) -> dict[str, Any]:
    """Inputs of that network by name."""
    feed = random_inputs(onnx.load(model))
    return {name: RNG.standard_normal((48, *value.shape[1:])).astype(np.float32) for name, value in feed.items()}


def test_the_best_that_the_data_allow() -> None:
    """Without a name: weights alone without data, calibrated with them."""
    assert recipe_for(None, data=False) is RECIPES["weights"]
    assert recipe_for(None, data=True) is RECIPES["calibrated"]
    assert recipe_for("no-data", data=False).made_up
    with pytest.raises(UsageError, match="--calib"):
        recipe_for("best", data=False)
    with pytest.raises(UsageError, match="there are: weights, no-data, calibrated, best"):
        recipe_for("good", data=True)


def test_compensations_by_name() -> None:
    """Each is a pipeline of passes; an unknown one is refused by name."""
    assert [len(recovery(name)) for name in COMPENSATIONS] == [0, 1, 1, 1, 1]
    with pytest.raises(UsageError, match="there are: none, least-squares"):
        recovery("magic")


def test_calibration_changes_weights_and_is_proved(model: Path, images: dict[str, Any]) -> None:
    """The cut is proved, the weights are chosen anew, outputs are compared, and the origin control is there."""
    plain = graphprune.prune(
        model, macs="60%", criterion="obs", calibration=images, compensate="none", normalize="losses"
    )
    found = graphprune.prune(model, macs="60%", calibration=images)
    assert found.verified
    assert found.plan is not None
    assert plain.plan is not None
    assert found.plan.cuts == plain.plan.cuts
    assert found.evaluation is not None
    assert plain.evaluation is not None
    assert found.evaluation.fidelity.relative_error < plain.evaluation.fidelity.relative_error
    assert found.evaluation.origin is not None
    assert found.evaluation.origin.relative_error == 0
    assert any("flatters" in note for note in found.notes)


def test_made_up_inputs_are_said(model: Path) -> None:
    """The recipe without data makes inputs up and says so."""
    found = graphprune.prune(model, macs="60%", recipe="no-data")
    assert any("SYNTHETIC" in note for note in found.notes)
    assert found.evaluation is not None
    assert found.evaluation.fidelity.synthetic


def test_a_metric_without_labels_is_measured_on_made_up_inputs(model: Path) -> None:
    found = graphprune.prune(model, ratio=0.5, recipe="no-data", metric=lambda outputs, targets: float(outputs[0].size))
    assert found.evaluation is not None
    assert found.evaluation.metric is not None
    assert found.evaluation.metric.dense == found.evaluation.metric.slim > 0
    with pytest.raises(UsageError, match="--metric accuracy needs labels, and synthetic inputs have none"):
        graphprune.prune(model, ratio=0.5, recipe="no-data", metric="accuracy")


def test_how_many_inputs_are_made_up() -> None:
    """As many as the size of the network allows."""
    canonical = ir.from_proto(resnet18(tiny=True))
    canonicalize(canonical)
    batches = calibrated({"calibration": MADE_UP}, canonical, 0, None)["calibration"]
    assert 32 <= batches.samples <= 512  # type: ignore[attr-defined]


def test_the_command_line(run: Run, model: Path, images: dict[str, Any], tmp_path: Path) -> None:
    """Options for data and recipe; what came out is verified by its plan, new weights and all."""
    np.savez(tmp_path / "calib.npz", **images)
    slim, plan = tmp_path / "slim.onnx", tmp_path / "plan.json"
    answer = run(
        "prune", model, "-o", slim, "--macs", "60%", "--json", "--calib", tmp_path / "calib.npz", "--plan", plan
    ).document
    assert answer["evaluation"]["fidelity"]["outputs"]
    assert answer["verified"]
    checked = run("verify", model, slim, "--plan", plan)
    assert checked.code == 0
    assert "weights, which were chosen anew after the cut and are not checked" in checked.out
    assert run("verify", model, slim, "--plan", plan, "--json").document["weights"] == "its own"


def test_options_that_exclude_each_other(model: Path, images: dict[str, Any]) -> None:
    """A pipeline says all; a metric needs data."""
    with pytest.raises(UsageError, match="pipeline says all"):
        graphprune.prune(model, pipeline="prune{ratio=0.5}", recipe="weights")
    with pytest.raises(UsageError, match="a metric is measured on data"):
        graphprune.prune(model, ratio=0.5, metric="accuracy")
    with pytest.raises(UsageError, match="needs calibration inputs"):
        graphprune.prune(model, ratio=0.5, criterion="wanda")
    with pytest.raises(UsageError, match="ONNX model does not have"):
        graphprune.prune(model, ratio=0.5, criterion="taylor", calibration=images)


def test_best_measures_and_prunes_by_curves(model: Path, images: dict[str, Any]) -> None:
    """Sensitivity curves decide how much of each group goes; the budget is met."""
    few = {name: values[:8] for name, values in images.items()}
    found = graphprune.prune(model, macs="60%", recipe="best", calibration=few)
    assert found.macs.after <= 0.6 * found.macs.before
    assert found.verified


@pytest.mark.torch
def test_a_module_keeps_its_class(tmp_path: Path) -> None:
    """New weights reach the module that comes back, its own class included."""
    torch = pytest.importorskip("torch")
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    ).eval()  # fmt: skip
    batches = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(6)]
    found = graphprune.prune(module, (batches[0],), macs="50%", calibration=batches)
    assert found.way == "module"
    assert found.evaluation is not None
    plain = graphprune.prune(module, (batches[0],), macs="50%", calibration=batches, compensate="none")
    again = graphprune.load(found.save(tmp_path / "slim"), module)
    with torch.no_grad():
        dense, slim, without, loaded = (net(batches[1]) for net in (module, found.module, plain.module, again))
    assert (dense - slim).square().sum() < 0.5 * (dense - without).square().sum()
    assert torch.allclose(loaded, slim, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("compensate", ["least-squares", "bias", "recalibrate", "merge"])
def test_a_module_in_training_mode_is_not_changed(compensate: Any) -> None:
    """Its running statistics are not those of the runs that compensation takes."""
    torch = pytest.importorskip("torch")
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten()
    ).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batches = [torch.randn(8, 3, 6, 6) for _ in range(4)]
    graphprune.prune(module, (batches[0],), ratio=0.4, calibration=batches, compensate=compensate)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_generator_is_read_once(model: Path, images: dict[str, Any]) -> None:
    """Curves and compensation both need the inputs."""
    ((name, values),) = images.items()
    found = graphprune.prune(model, macs="60%", recipe="best", calibration=({name: values[k : k + 4]} for k in (0, 4)))
    assert found.verified


def test_data_are_not_replaced(run: Run, model: Path, images: dict[str, Any], tmp_path: Path) -> None:
    """An output that is the calibration data is refused before anything is done."""
    data = tmp_path / "calib.npz"
    np.savez(data, **images)
    stored = data.read_bytes()
    answer = run("prune", model, "-o", data, "--macs", "60%", "--calib", data)
    assert answer.code == 2
    assert "the output is the input" in answer.err
    assert data.read_bytes() == stored
