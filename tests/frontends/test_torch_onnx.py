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
