"""Artifacts of TVM: what is in the folder, and that it runs with TVM's runtime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from tvm_programs import convolution, needs_tvm

from graphprune.backends.registry import load
from graphprune.backends.tvm import targets
from graphprune.backends.tvm.backend import Tvm
from graphprune.errors import ModelError, UsageError
from graphprune.models import digits_path

pytestmark = needs_tvm

FEED = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    executable = Tvm().compile(convolution(), "cpu", threads=1, dims={"n": 1})
    return executable.save(tmp_path_factory.mktemp("tvm") / "made", executable.measure(repeats=6, warmup=1))


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_the_manifest(made: Path) -> None:
    found = document(made)
    assert (found["backend"], found["target"], found["binary"]) == ("tvm", "cpu", "model.so")
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4, 8, 8]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": [1, 8, 8, 8]}]
    assert len(found["model"]["fingerprint"]) == 64
    assert 0 < found["code_bytes"] < found["bytes"] == (made / "model.so").stat().st_size
    assert found["latency"]["median_ms"] > 0
    assert found["latency"]["threads"] == 1
    assert '"kind":"llvm"' in found["options"]["tvm_target"]
    assert found["runtime"].keys() == {"apache-tvm", "apache-tvm-ffi"}


def test_it_loads_and_is_saved_again(made: Path, tmp_path: Path) -> None:
    executable = load(made)
    found = executable(FEED)["y"]
    assert np.ptp(found) > 1
    copy = executable.save(tmp_path / "copy")
    assert np.array_equal(load(copy, threads=2)(FEED)["y"], found)
    assert executable.measure(FEED, repeats=6).timings[0].median > 0


def test_it_runs_with_the_runtime_alone(made: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **FEED)
    script = made / "load.py"
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(("graphprune", "onnxruntime", "torch")))
sys.argv = ["load.py", {str(tmp_path / "x.npz")!r}, {str(tmp_path / "y.npz")!r}]
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npz")["y"], load(made)(FEED)["y"])


def test_artifacts_of_another_processor_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = document(made)["options"]["features"]
    if not features:
        pytest.skip("this processor is no x86")
    monkeypatch.setattr(targets, "_real", lambda: frozenset(features[1:]))
    with pytest.raises(UsageError, match=f"compiled for a processor with {features[0]}, which this one lacks"):
        load(made)


def test_damaged_ones_are_refused(made: Path, tmp_path: Path) -> None:
    copy = load(made).save(tmp_path / "copy")
    found = document(copy)
    del found["options"]["threads"]
    (copy / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match="its manifest is damaged"):
        load(copy)


def test_commands(run: Run, tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    compiled = run("compile", digits_path(), "--backend", "tvm", "--threads", 1, "--dims", "n=2", "-o", first, "--json")
    assert compiled.code == 0, compiled.err
    assert compiled.document["latency"]["median_ms"] > 0
    assert compiled.document["obstacle"] is None
    ran = run("run", first, "-o", tmp_path / "y.npz", "--json")
    assert ran.document["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [2, 10]}]
    both = ("bench", first, digits_path(), "--backend", "tvm", "--threads", 1, "--dims", "n=2", "--repeats", 6)
    raced = run(*both, "--warmup", 1, "--json")
    assert [row["model"] for row in raced.document["models"]] == [str(first), str(digits_path())]
    crossed = run("compile", digits_path(), "--backend", "tvm", "--target", "riscv64", "--dims", "n=1", "-o", other)
    assert crossed.code == 0, crossed.err
    assert "not measured: it is for riscv64: run it there" in crossed.out
    assert document(other)["latency"] is None
    refused = run("run", other)
    assert (refused.code, refused.out) == (2, "")
    assert "cannot run here: it is for riscv64" in refused.err


def test_options_of_the_other_backend_are_refused(run: Run, tmp_path: Path) -> None:
    wrong = run("compile", digits_path(), "--backend", "tvm", "--precision", "fp16", "-o", tmp_path / "a")
    assert (wrong.code, "--precision is for --backend onnxruntime, and tvm has" in wrong.err) == (2, True)
    wrong = run("compile", digits_path(), "--tune", 3, "-o", tmp_path / "a")
    assert (wrong.code, "--tune is for --backend tvm, and onnxruntime has" in wrong.err) == (2, True)
