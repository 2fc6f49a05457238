"""Tuning with TVM: a few trials make a database, which later ones use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tvm_programs import convolution, needs_tvm

from graphprune.backends.tvm import baseline, package, tuning
from graphprune.backends.tvm.backend import Tvm
from graphprune.errors import ModelError, UsageError

pytestmark = needs_tvm

FEED = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}


def tuned(folder: Path, channels: int = 8, **options: Any) -> tuple[dict[str, Any], Any, list[str]]:
    """What the manifest says of tuning, the outputs, and what was said meanwhile."""
    said: list[str] = []
    made = Tvm().compile(
        convolution(channels),
        "cpu",
        threads=1,
        dims={"n": 1},
        tune=2,
        database=folder / "database",
        progress=said.append,
        **options,
    )
    return dict(made.stored.options["tuning"]), made(FEED)["y"], said


def test_the_database_is_kept_and_used_again(tmp_path: Path) -> None:
    first, outputs, said = tuned(tmp_path)
    (folder,) = (tmp_path / "database").iterdir()
    counts = {"found": 1, "tuned": 1, "reused": 0, "trials": 2}
    assert first == {**counts, "database": str(folder), "plain_failures": []}
    assert "tuning: measuring what there is without" in said
    assert "tuning: compiling and measuring 2 schedules, batch 2" in said
    assert "tuning: 2 of 2 trials" in said
    assert np.ptp(outputs) > 1
    records = folder / "database_tuning_record.json"
    assert len(records.read_text().splitlines()) == 3  # two trials and the plain schedule
    before = records.read_bytes()
    second, again, said = tuned(tmp_path)
    assert second == {**first, "tuned": 0, "reused": 1, "trials": 0}
    assert not any("trials" in line for line in said)
    assert np.array_equal(again, outputs)
    assert records.read_bytes() == before
    untuned = Tvm().compile(convolution(), "cpu", threads=1, dims={"n": 1})
    assert np.allclose(untuned(FEED)["y"], outputs, rtol=1e-5, atol=1e-5)

    records.write_text(records.read_text()[:-40])
    with pytest.raises(ModelError, match=r"the database is damaged \(.*\); remove the folder"):
        tuned(tmp_path)


def test_nothing_is_left_where_temporary_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    told, _, _ = tuned(tmp_path)
    assert told["trials"] == 2
    assert not [path for path in scratch.rglob("*") if "tvm" in path.name]


def test_a_plain_schedule_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def build(self, inputs: list[Any]) -> list[Any]:
            return [SimpleNamespace(error_msg="no space left\nand more", artifact_path=None) for _ in inputs]

    def failing(tasks: Any, target: Any, device: str, database: Any, builder: Any, runner: Any) -> list[str]:
        return baseline.add_plain(tasks, target, device, database, Broken(), runner)

    monkeypatch.setattr(tuning, "add_plain", failing)
    told, _, _ = tuned(tmp_path)
    assert told["plain_failures"] == ["no space left"]
    text = tuning.Tuning(3, 2, 1, 9, "here", ("no space left",)).text
    assert text.endswith("1 reused, 1 without a plain schedule to compare with (no space left); here")


def test_a_database_has_one_writer(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    words = "another process tunes with this database"
    with tuning._locked(tmp_path), pytest.raises(UsageError, match=words), tuning._locked(tmp_path):
        pytest.fail("two writers")


def test_what_tuning_needs_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = package._is_there
    monkeypatch.setattr(package, "_is_there", lambda name: name != "xgboost" and there(name))
    with pytest.raises(UsageError, match=r"tuning needs xgboost: pip install 'graphprune\[tvm\]'"):
        tuned(tmp_path)
    monkeypatch.setattr(package, "_is_there", there)
    monkeypatch.setattr(package, "versions", lambda: {"apache-tvm-ffi": "0.1.15.post2"})
    with pytest.raises(UsageError, match=r"crashes when it tunes: pip install 'apache-tvm-ffi!=0.1.15.\*'"):
        tuned(tmp_path)
