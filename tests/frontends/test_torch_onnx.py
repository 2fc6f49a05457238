"""Pruned modules as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch_returned import give_back  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import ModelError, VerificationError  # noqa: E402
from graphprune.frontends.torch_onnx import to_onnx  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def run(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    """The results of ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", ["module", "graph"])
@pytest.mark.parametrize("name", ["residual", "language", "encoder", "tagger"])
def test_the_file_computes_what_the_module_does(name: str, way: str, tmp_path: Path) -> None:
    case = give_back(name, way=way, training=True)  # type: ignore[arg-type]
    path = to_onnx(case.module, (case.inputs,), None, tmp_path / "slim.onnx")
    assert case.module.training
    case.module.eval()
    (expected,) = pytree.tree_leaves(case.module(case.inputs))
    (found,) = run(path, case.inputs)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-3, atol=1e-4)
    assert [each.name for each in tmp_path.iterdir()] == ["slim.onnx"]


def test_a_program_is_exported_too(tmp_path: Path) -> None:
    case = give_back("grouped")
    path = to_onnx(case.slim, path=tmp_path / "slim.onnx")
    (found,) = run(path, case.inputs)
    np.testing.assert_allclose(found, case.slim.module(case.inputs).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_dynamic_shapes(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    path = to_onnx(nn.Linear(3, 2), (torch.randn(4, 3),), None, tmp_path / "m.onnx", dynamic_shapes=shapes)
    assert run(path, torch.randn(9, 3))[0].shape == (9, 2)


def test_what_no_exporter_takes(tmp_path: Path) -> None:
    class Impossible(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("cannot be")

    with pytest.raises(ModelError, match="cannot be"):
        to_onnx(Impossible(), (torch.ones(1),), None, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_tracing_exporter_steps_in(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if float(x.sum()) > 0 else x - 1

    with pytest.warns(UserWarning, match="the tracing exporter was used"):
        path = to_onnx(Branches(), (torch.ones(2),), None, tmp_path / "m.onnx")
    np.testing.assert_allclose(run(path, torch.ones(2))[0], [2, 2])


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if torch.compiler.is_exporting() else x

    with pytest.raises(VerificationError, match="no file is kept"):
        to_onnx(Moody(), (torch.ones(2),), None, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_example_inputs_follow_a_converted_module(tmp_path: Path) -> None:
    case = give_back("grouped", way="module")
    assert case.inputs.dtype == torch.float32
    path = to_onnx(case.module.half(), (case.inputs,), None, tmp_path / "m.onnx")
    assert run(path, case.inputs.half())[0].dtype == np.float16


def test_modules_that_convert_their_inputs_get_them_as_they_are(tmp_path: Path) -> None:
    class Converts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2).half()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.half()).float()

    path = to_onnx(Converts(), (torch.randn(4, 3),), None, tmp_path / "m.onnx")
    assert run(path, torch.randn(4, 3))[0].dtype == np.float32


@pytest.mark.parametrize("network", [nn.Linear(3, 2), nn.Conv1d(3, 2, 1)])
def test_what_onnx_runtime_cannot_run(network: nn.Module, tmp_path: Path) -> None:
    inputs = torch.randn(3, 3, dtype=torch.bfloat16)
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run .*\.float\(\) first") as caught:
        to_onnx(network.bfloat16(), (inputs,), None, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert to_onnx(network, (inputs,), None, tmp_path / "m.onnx", check=False).exists()


@pytest.mark.parametrize("way", ["module", "graph"])
def test_a_result_is_exported_with_the_sizes_it_was_pruned_with(way: str, tmp_path: Path) -> None:
    network, inputs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 6)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    result = graphprune.prune(network, (inputs,), ratio=0.5, way=way, dynamic_shapes=shapes)
    assert run(result.to_onnx(tmp_path / "a.onnx"), torch.randn(9, 6))[0].shape == (9, 3)
    assert run(to_onnx(result.model, path=tmp_path / "b.onnx"), torch.randn(9, 6))[0].shape == (9, 3)
    fixed = result.to_onnx(tmp_path / "c.onnx", dynamic_shapes=None)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(fixed, torch.randn(9, 6))
