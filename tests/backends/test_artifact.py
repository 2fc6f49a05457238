"""Artifacts: what is in the folder, that it runs without graphprune, and what happens to damaged ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphprune.backends import artifact
from graphprune.backends.artifact import check_folder, is_artifact, read_manifest
from graphprune.backends.onnxruntime.backend import OnnxRuntime
from graphprune.backends.registry import load
from graphprune.errors import ModelError, UsageError
from graphprune.models import digits_path, digits_test

IMAGES = digits_test().inputs[:4]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    executable = OnnxRuntime().compile(digits_path(), "cpu", threads=1)
    return executable.save(tmp_path / "made", executable.measure(repeats=6, warmup=1))


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def rewrite(folder: Path, **changes: object) -> None:
    (folder / "manifest.json").write_text(json.dumps({**document(folder), **changes}))


def test_the_manifest(made: Path) -> None:
    found = document(made)
    assert found["target"] == "cpu"
    assert found["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["n", 1, 8, 8]}]
    assert found["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["n", 10]}]
    assert len(found["model"]["fingerprint"]) == 64
    assert found["latency"]["median_ms"] > 0
    assert found["latency"]["runs"] == 6
    assert found["latency"]["machine"]["processors"] >= 1
    assert found["versions"]["onnxruntime"]
    assert sorted([*found["files"], "manifest.json"]) == sorted(each.name for each in made.iterdir())
    assert str(made.parent) not in json.dumps(found)
    assert read_manifest(made).binary == made / "model.onnx"
    assert is_artifact(made)
    assert not is_artifact(made.parent)


def test_it_loads_and_computes_the_same(made: Path) -> None:
    (expected,) = OnnxRuntime().compile(digits_path(), "cpu", optimize="none")({"images": IMAGES}).values()
    executable = load(made)
    assert np.ptp(expected) > 1
    assert np.allclose(executable({"images": IMAGES})["logits"], expected, rtol=1e-5, atol=1e-5)  # fused, fp32
    assert executable.threads == 1
    assert load(made, threads=2).threads == 2


def test_it_runs_without_graphprune(made: Path, tmp_path: Path) -> None:
    moved = made.rename(tmp_path / "moved")
    np.savez(tmp_path / "x.npz", images=IMAGES)
    script = "import sys, runpy; sys.modules['graphprune'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    script = script.replace("sys.argv[0]", repr(str(moved / "load.py")))
    command = [sys.executable, "-c", script, str(tmp_path / "x.npz"), str(tmp_path / "y.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = subprocess.run(command[:-1], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (told.returncode, told.stderr) == (1, "usage: python load.py INPUTS.npz OUTPUTS.npz\n")
    assert np.array_equal(np.load(tmp_path / "y.npz")["logits"], load(moved)({"images": IMAGES})["logits"])


def test_saving_again_replaces_it_and_a_loaded_one_can_be_saved(made: Path, tmp_path: Path) -> None:
    before = document(made)
    load(made).save(tmp_path / "copy")
    copy = document(tmp_path / "copy")
    assert copy["files"] == before["files"]
    assert copy["model"] == before["model"]
    OnnxRuntime().compile(digits_path(), "cpu", precision="fp16").save(made)
    assert document(made)["options"]["precision"] == "fp16"
    assert load(made)({"images": IMAGES})["logits"].shape == (4, 10)
    load(made).save(made)  # onto itself
    assert load(made)({"images": IMAGES})["logits"].shape == (4, 10)
    assert {each.name for each in tmp_path.iterdir()} == {"made", "copy"}


def test_what_is_not_ours_stays(made: Path, tmp_path: Path) -> None:
    executable = OnnxRuntime().compile(digits_path(), "cpu", optimize="none")
    (tmp_path / "folder").mkdir()
    executable.save(tmp_path / "folder")  # empty
    (made / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    foreign = {made: "holds 'thesis.tex'", tmp_path: "is not an artifact", tmp_path / "file": "is not an artifact"}
    for target, words in foreign.items():
        with pytest.raises(UsageError, match=words):
            check_folder(target)
        with pytest.raises(UsageError, match=words):
            executable.save(target)
    assert (made / "model.onnx").exists()


def test_a_failed_write_leaves_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    executable = load(made)
    before = document(made)
    monkeypatch.setattr(artifact, "_digest", full)
    for target in (tmp_path / "new", made):
        with pytest.raises(ModelError, match="cannot be written"):
            executable.save(target)
    assert not (tmp_path / "new").exists()
    assert document(made) == before
    assert {each.name for each in made.iterdir()} == {*before["files"], "manifest.json"}


def test_damage_is_told(made: Path, tmp_path: Path) -> None:
    binary = made / "model.onnx"
    content = binary.read_bytes()
    binary.write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelError, match=r"model.onnx: damaged, its checksum"):
        load(made)
    binary.unlink()
    with pytest.raises(ModelError, match=r"model.onnx: cannot be read"):
        load(made)
    binary.write_bytes(content)
    load(made)
    (tmp_path / "secret.onnx").write_bytes(content)
    whole = document(made)
    changes: list[tuple[dict[str, object], str]] = [
        ({"kind": "graphprune module"}, "no artifact of graphprune"),
        ({"format": 99}, "has format 99"),
        ({"files": {**whole["files"], "../secret.onnx": "0"}}, "names the file '../secret.onnx'"),
        ({"binary": "../secret.onnx"}, "names a binary that is none of its files"),
        ({"files": None}, "lacks what every artifact has"),
        ({"options": {}}, "its manifest is damaged"),
        ({"inputs": None}, "damaged, its inputs are not described"),
        ({"outputs": [{"name": "logits"}]}, "damaged, its outputs are not described"),
        ({"backend": "levitation"}, "no backend 'levitation'"),
        ({"target": "moon"}, "no target 'moon'"),
    ]
    for change, words in changes:
        rewrite(made, **{**whole, **change})
        with pytest.raises((ModelError, UsageError), match=words):
            load(made)
    for text in ("", "[]", "{", "[" * 100_000):
        (made / "manifest.json").write_text(text)
        with pytest.raises(ModelError):
            load(made)
    os.unlink(made / "manifest.json")
    with pytest.raises(ModelError, match="no artifact, it has no manifest"):
        load(made)
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "nowhere")
