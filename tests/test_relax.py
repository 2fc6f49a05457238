"""Steps for TVM's own pipelines: pruned Relax modules, and this library's passes among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm_programs import needs_tvm

import graphprune
from graphprune import relax
from graphprune.backends.registry import backend
from graphprune.backends.tvm import tuning
from graphprune.errors import UsageError
from graphprune.models import digits_path, digits_test

IMAGES = digits_test().inputs[:2]


def test_importing_it_imports_no_tvm() -> None:
    code = "import sys, graphprune.relax; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def outputs(module: Any, pipeline: Any) -> np.ndarray:
    """What TVM computes when it compiles ``module`` for this CPU by itself."""
    import tvm

    executable = tvm.compile(module, target="llvm", relax_pipeline=pipeline)
    machine = tvm.relax.VirtualMachine(executable, tvm.cpu())
    found: np.ndarray = machine["main"](tvm.runtime.tensor(IMAGES)).numpy()
    return found


@needs_tvm
def test_a_pruned_module_goes_through_pipelines() -> None:
    module = relax.module(digits_path(), macs="50%", dims={"n": 2})
    slim = graphprune.prune(digits_path(), macs="50%").model
    expected = backend("ort").compile(slim, "cpu", threads=1)({"images": IMAGES})["logits"]
    relax.register()
    relax.register()
    for pipeline in (relax.pipeline(), "graphprune", "default"):
        found = outputs(module, pipeline)
        assert np.ptp(expected) > 1
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


@needs_tvm
def test_what_was_tuned_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tvm
    from tvm_ffi import structural_equal

    monkeypatch.setattr(tuning, "add_plain", lambda *arguments: [])  # which may be the fastest, and is no other
    options: dict[str, Any] = {"threads": 1, "dims": {"n": 2}, "tune": 2, "database": tmp_path}
    made = backend("tvm").compile(digits_path(), "cpu", **options)
    module = relax.module(digits_path(), ratio=0.0, dims={"n": 2})
    target = made.stored.options["tvm_target"]
    with tvm.target.Target(target):
        assert not structural_equal(relax.pipeline(database=tmp_path)(module), relax.pipeline()(module))
        assert structural_equal(relax.pipeline()(module), relax.pipeline()(module))
    with tvm.target.Target("llvm"), pytest.raises(Exception, match="nothing was tuned there for"):
        relax.pipeline(database=tmp_path / "none")(module)
    with pytest.raises(Exception, match="needs a target"):
        relax.pipeline()(module)


@needs_tvm
@pytest.mark.torch
def test_modules_of_pytorch_are_exported_first() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match="export the module first"):
        relax.module(torch.nn.Linear(2, 2), ratio=0.5)
