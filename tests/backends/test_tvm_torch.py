"""Compiling exported PyTorch programs with TVM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from tvm_programs import needs_tvm

from graphprune.backends.tvm.backend import Tvm
from graphprune.errors import ModelError, UsageError

torch = pytest.importorskip("torch")
pytestmark = [needs_tvm, pytest.mark.torch]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(8 * 16, 5)).eval()


def test_exported_and_captured_programs_equal_pytorch() -> None:
    from graphprune.frontends.torch_program import capture

    module, images = network(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = module(images).numpy()
    exported = torch.export.export(module, (images,), strict=False)
    for program in (exported, capture(module, (images,))):
        executable = Tvm().compile(program, "cpu", threads=1)
        (spec,) = executable.inputs
        assert (spec.dtype, spec.dims) == ("float32", (2, 3, 6, 6))
        (found,) = executable({spec.name: images.numpy()}).values()
        assert np.ptp(expected) > 0.1
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)  # fp32, summed in another order
        assert len(executable.stored.model["fingerprint"]) == 64


def test_files_of_exported_programs(run: Run, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.randn(2, 3, 6, 6),), strict=False), tmp_path / "m.pt2")
    made = tmp_path / "made"
    compiled = run("compile", tmp_path / "m.pt2", "--backend", "tvm", "--no-measure", "-o", made, "--json")
    assert (compiled.code, compiled.err) == (0, "")
    ran = run("run", made, "--json")
    assert [output["shape"] for output in ran.document["outputs"]] == [[2, 5]]
    refused = run("compile", tmp_path / "m.pt2", "-o", tmp_path / "other")
    assert (refused.code, "onnxruntime compiles ONNX models; export the module first" in refused.err) == (2, True)


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Sequential: export it first, as torch.export.export"):
        Tvm().compile(network(), "cpu")

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(torch.relu(x))

    exported = torch.export.export(Odd(), (torch.eye(3),), strict=False)
    with pytest.raises(ModelError, match=r"TVM does not support the operator \S+ \(node '\w+'\).*; --backend ort comp"):
        Tvm().compile(exported, "cpu")
    good = torch.export.export(network(), (torch.randn(2, 3, 6, 6),), strict=False)
    with pytest.raises(UsageError, match="its sizes are those of its export"):
        Tvm().compile(good, "cpu", dims={"n": 1})
