"""The whole way in one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from told_times import taking
from tvm_programs import needs_tvm

import graphprune
from graphprune import optimizing
from graphprune.backends import race
from graphprune.backends.measure import Measurement, Timing
from graphprune.backends.registry import load
from graphprune.errors import SlowerError, UsageError
from graphprune.models import digits_path, digits_test


def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, race, 2e-3, 1e-3)
    images = digits_test().inputs[:32]
    stages: list[str] = []
    found = graphprune.optimize(
        digits_path(),
        budget={"macs": "40%"},
        threads=1,
        calibration=images,
        precision="int8-static",
        output=tmp_path / "slim",
        progress=stages.append,
    )
    assert found.comparison.text == "faster by 2.00x, 95 % interval 2.00-2.00"
    assert found.result.verified
    assert found.result.macs.after <= 0.4 * found.result.macs.before
    assert {"prune", "compile", "measure", "write"} <= set(found.seconds)
    assert {"prune", "compile", "measure", "write"} <= set(stages)
    document = json.loads(json.dumps(found.to_dict()))
    assert document["artifact"] == str(tmp_path / "slim")
    assert document["slim"]["median_ms"] == pytest.approx(1.0)
    assert document["dense"]["median_ms"] == pytest.approx(2.0)
    assert not any("single precision" in note for note in document["notes"])  # the budget was no latency
    artifact = load(found.artifact)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        artifact({"images": images})["logits"], found.executable({"images": images})["logits"]
    )
    manifest = json.loads((tmp_path / "slim" / "manifest.json").read_text())
    assert manifest["latency"]["median_ms"] == pytest.approx(1.0)
    assert manifest["options"]["precision"] == "int8-static"


def test_what_is_not_faster_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, race, 1e-3, 2e-3)
    options: dict[str, Any] = {"budget": {"ratio": 0.5}, "threads": 1, "output": tmp_path / "slim"}
    with pytest.raises(SlowerError, match=r"not shown to be faster than the dense one: slower by 2\.00x"):
        graphprune.optimize(digits_path(), **options)
    assert not (tmp_path / "slim").exists()
    found = graphprune.optimize(digits_path(), **options, allow_slower=True)
    assert found.comparison.verdict == "slower"
    assert found.artifact == tmp_path / "slim"


def test_it_runs_here() -> None:
    found = graphprune.optimize(digits_path(), budget={"ratio": 0.5}, threads=1, allow_slower=True)
    assert found.measurement.threads == 1
    assert found.measurement.timings[0].runs in (30, 120)
    assert found.artifact is None
    assert found.executable({"images": digits_test().inputs[:2]})["logits"].shape == (2, 10)


@needs_tvm
def test_both_are_compiled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def told(executables: list[Any], feeds: Any, **options: Any) -> Any:
        made.extend(executables)
        return Measurement(tuple(Timing(name, np.full(30, each)) for name, each in (("a", 2e-3), ("b", 1e-3))))

    monkeypatch.setattr(optimizing, "in_turns", told)
    options: dict[str, Any] = {"budget": {"macs": "50%"}, "backend": "tvm", "dims": {"n": 1}, "threads": 1}
    found = graphprune.optimize(digits_path(), **options)
    assert [each.fixed for each in made] == [{"n": 1}, {"n": 1}]
    assert found.executable({"images": digits_test().inputs[:1]})["logits"].shape == (1, 10)
    with pytest.raises(UsageError, match="tvm has no option 'precision'"):
        graphprune.optimize(digits_path(), **options, precision="fp16")


def test_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no budget 'energy'; there are: ratio, macs"):
        graphprune.optimize(digits_path(), budget={"energy": "50%"})
    with pytest.raises(UsageError, match=r"what to keep goes into the budget, as budget=\{'macs': '60%'\}"):
        graphprune.optimize(digits_path(), macs="60%")
    with pytest.raises(UsageError, match="gate is no option of optimize: it always measures"):
        graphprune.optimize(digits_path(), gate=True)
    with pytest.raises(UsageError, match="--rpc is for devices with a server of TVM's"):
        graphprune.optimize(digits_path(), budget={"ratio": 0.5}, rpc="board:9090")
    with pytest.raises(UsageError, match="an ONNX model takes no example inputs"):
        graphprune.optimize(digits_path(), (1,))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="is not an artifact"):
        graphprune.optimize(digits_path(), output=tmp_path / "full")


@pytest.mark.torch
def test_a_module_is_exported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    taking(monkeypatch, race, 2e-3, 1e-3)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)).eval()
    found = graphprune.optimize(module, (torch.zeros(1, 16),), budget={"ratio": 0.5}, threads=1)
    assert found.result.params.after < 0.6 * found.result.params.before
    assert "export" in found.seconds
