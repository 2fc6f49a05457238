"""Races between models and artifacts, and the gate that refuses what is not faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import parse
from told_times import taking

from graphprune.backends import gate, race
from graphprune.backends.gate import faster
from graphprune.backends.machine import processors_for
from graphprune.backends.measure import Comparison
from graphprune.backends.onnxruntime.backend import OnnxRuntime
from graphprune.errors import ModelError, SlowerError, UsageError


def product(path: Path, size: int, columns: int | None = None) -> Path:
    text = f"g (float[N, {size}] x) => (float[N, {columns or size}] y) {{ y = MatMul(x, w) }}"
    ir.save(parse(text, w=np.ones((size, columns or size), np.float32)), path)
    return path


def test_models_and_artifacts_race(tmp_path: Path) -> None:
    small, large = product(tmp_path / "small.onnx", 1024, 8), product(tmp_path / "large.onnx", 1024, 2048)
    artifact = OnnxRuntime().compile(small, "cpu").save(tmp_path / "artifact")
    found = race.race([large, small, artifact], threads=1, pin=True, repeats=10, warmup=1)
    assert [each.name for each in found.executables] == [str(large), str(small), str(artifact)]
    assert found.measurement.pinned == tuple(processors_for(1))
    assert [each.runs for each in found.measurement.timings] == [10, 10, 10]
    assert all((each.times > 0).all() for each in found.measurement.timings)
    assert found.executables[1].stored_bytes() < found.executables[0].stored_bytes()


def test_what_is_slower_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = product(tmp_path / "first.onnx", 8), product(tmp_path / "other.onnx", 8, 16)
    taking(monkeypatch, race, 3e-3, 1e-3)
    assert faster(first, other, threads=1, repeats=10).low == pytest.approx(3)
    taking(monkeypatch, race, 1e-3, 3e-3)
    with pytest.raises(SlowerError, match=r"other.onnx is not shown to be faster than .*: slower by 3.00x") as caught:
        faster(first, other, threads=1, repeats=10)
    assert caught.value.exit_code == 6
    assert caught.value.details["comparison"]["verdict"] == "slower"
    assert faster(first, other, threads=1, repeats=10, allow_slower=True).high < 1


def test_all_get_the_same_inputs_where_that_is_possible(tmp_path: Path) -> None:
    free, narrow = product(tmp_path / "free.onnx", 8), product(tmp_path / "narrow.onnx", 4)
    fixed = tmp_path / "fixed.onnx"
    ir.save(parse("g (float[1, 8] x) => (float[1, 8] y) { y = MatMul(x, w) }", w=np.ones((8, 8), np.float32)), fixed)
    for order in ((free, fixed), (fixed, free), (free, fixed, free)):
        executables = [race.opened(each, "ort", "cpu", threads=1) for each in order]
        feeds, notes = race.common_inputs(executables, None, None, 0)
        assert {feed["x"].shape for feed in feeds} == {(1, 8)}
        assert notes == ()
    found = race.race([free, narrow], threads=1, repeats=2, loads=1)
    (note,) = found.notes
    assert note.startswith("not the same work, and not compared: ")
    assert note.endswith(f"narrow.onnx ran on x 1x4; {free} on x 1x8")
    assert not found.measurement.alike
    assert found.measurement.to_dict()["inputs"] is None
    mixed = race.race([free, narrow, fixed], threads=1, repeats=2, loads=1).measurement
    assert [mixed.comparable(place) for place in range(3)] == [True, False, True]
    with pytest.raises(UsageError, match="x 1x4 and x 1x8 are different work"):
        gate.faster(free, narrow, threads=1, repeats=2)
    both = race.race([free, fixed], threads=1, repeats=2, loads=1)
    assert both.notes == ()
    assert both.measurement.inputs == ({"x": (1, 8)},) * 2
    given = race.race([free, fixed], {"x": np.ones((1, 8), np.float32)}, threads=1, repeats=12)
    assert given.notes == ()
    assert given.measurement.to_dict()["inputs"] == {"x": [1, 8]}
    assert "loaded 6 times, on x 1x8; " in given.measurement.circumstances


def test_inputs_are_those_that_costs_are_for(tmp_path: Path) -> None:
    text = (
        "g (float[N, 3, H, W] x, float[N, T] t) => (float[N, T] y, float[N, 3, H, W] z) { y = Relu(t)\n z = Relu(x) }"
    )
    executable = OnnxRuntime().compile(parse(text), "cpu", threads=1)
    for dims, length in ((None, 128), ({"T": 5}, 5)):
        (feed,), _ = race.common_inputs([executable], None, dims, 0)
        assert {name: array.shape for name, array in feed.items()} == {"x": (1, 3, 224, 224), "t": (1, length)}


def test_one_sample_is_measured_where_the_batch_is_open(tmp_path: Path) -> None:
    free = product(tmp_path / "free.onnx", 8)
    found = race.measure_alone(OnnxRuntime().compile(free, "cpu", threads=1), repeats=2)
    assert found.inputs == ({"x": (1, 8)},)


def test_too_few_runs_for_many_loads_are_told(tmp_path: Path) -> None:
    free = product(tmp_path / "free.onnx", 8)
    found = race.race([free, free], threads=1, repeats=4)
    assert found.measurement.loads == 1
    assert "fewer than 6 runs, or several loads, show nothing" in found.measurement.comparison(1).text
    assert found.measurement.comparison(1).to_dict()["high"] is None
    with pytest.raises(SlowerError, match=r"show nothing\); measure more of them: --repeats 30 --loads 6"):
        gate.require_faster(found.measurement.comparison(1), "b", "a")
    assert found.notes[0].startswith("all were loaded once: 6 loads take 12 runs of each (--repeats)")


def test_threads_must_be_alike(tmp_path: Path) -> None:
    model = product(tmp_path / "m.onnx", 8)
    artifact = OnnxRuntime().compile(model, "cpu", threads=1).save(tmp_path / "artifact")
    with pytest.raises(
        UsageError, match=r"has as many as there are cores and .*artifact has 1 threads: give --threads"
    ):
        race.race([model, artifact])
    assert race.race([artifact], repeats=1).measurement.threads == 1


def test_a_folder_that_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no artifact, it has no manifest"):
        race.race([tmp_path])


def test_measured_again_where_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answers = [Comparison(1.05, 0.9, 1.2), Comparison(1.05, 1.01, 1.1)]

    def told(models: Sequence[str], inputs: Any, *, repeats: int, **options: Any) -> Any:
        asked.append(repeats)
        return SimpleNamespace(measurement=SimpleNamespace(comparison=lambda index: answers[len(asked) - 1]))

    monkeypatch.setattr(gate, "race", told)
    assert faster("a", "b", repeats=10) == answers[1]
    assert asked == [10, 40]
    asked.clear()
    answers[1] = Comparison(1.0, 0.99, 1.01)
    with pytest.raises(SlowerError, match="b is not shown to be faster than a: no difference shown"):
        faster("a", "b", repeats=10)
    asked.clear()
    assert faster("a", "b", allow_slower=True) == answers[1]
