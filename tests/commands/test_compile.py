"""The commands ``backends``, ``compile``, ``run`` and ``bench``: what they write, answer and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from command_line import Run
from onnx_models import parse
from told_times import taking

from graphprune.backends import race
from graphprune.cli import main
from graphprune.models import digits_path, digits_test

DIGITS = digits_path()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "digits"
    assert main(["compile", str(DIGITS), "-o", str(folder), "--threads", "1", "-q"]) == 0
    return folder


def test_backends_are_listed(run: Run) -> None:
    answer = run("backends")
    assert (answer.code, answer.err) == (0, "")
    assert "onnxruntime (ort)" in answer.out
    assert "cpu" in answer.out
    assert "available" in answer.out
    entry, tvm = run("backends", "--json").document["backends"]
    assert (entry["name"], tvm["name"]) == ("onnxruntime", "tvm")
    assert entry["available"]
    targets = {target["name"]: target for target in entry["targets"]}
    assert targets["cpu"] == {"name": "cpu", "available": True, "remedy": None}
    assert all(target["available"] or target["remedy"] for target in targets.values())


def test_compile_run_and_bench(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = digits_test().inputs
    np.savez(tmp_path / "calib.npz", images=images[:64])
    folder = tmp_path / "int8"
    options = ("--precision", "int8-static", "--calib", tmp_path / "calib.npz", "--threads", "1")
    answer = run("compile", DIGITS, *options, "-o", folder, "--json")
    assert answer.code == 0
    assert answer.document["status"] == "compiled"
    assert answer.document["latency"]["median_ms"] > 0
    assert answer.document["precision"] == "int8-static"
    assert "int8-static: outputs differ by" in answer.document["notes"][-1]
    np.savez(tmp_path / "x.npz", images=images[64:80])
    answer = run("run", folder, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--json")
    assert answer.document["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [16, 10]}]
    with np.load(tmp_path / "y.npz") as found:
        assert np.mean(found["logits"].argmax(1) == digits_test().labels[64:80]) > 0.8
    taking(monkeypatch, race, 2e-3, 1e-3)
    answer = run("bench", DIGITS, folder, "--threads", "1", "--repeats", "10", "--gate", "--json")
    assert answer.code == 0
    dense, small = answer.document["models"]
    assert dense["comparison"] is None
    assert small["comparison"]["verdict"] == "faster"
    assert small["comparison"]["low"] <= small["speedup"] <= small["comparison"]["high"]
    assert small["speedup"] == pytest.approx(2)
    assert answer.document["threads"] == 1
    taking(monkeypatch, race, 1e-3, 2e-3)
    refused = run("bench", folder, DIGITS, "--threads", "1", "--repeats", "10", "--gate", "--json")
    assert refused.code == 6
    assert refused.document["status"] == "refused"
    assert refused.document["error"]["kind"] == "SlowerError"
    assert refused.document["models"][1]["comparison"]["verdict"] == "slower"
    assert refused.err.count("\n") == 1


def test_what_people_read(run: Run, artifact: Path, tmp_path: Path) -> None:
    answer = run("compile", DIGITS, "-o", tmp_path / "half", "--precision", "fp16", "--threads", "1")
    assert answer.out.startswith("compiled for onnxruntime on cpu: ")
    assert "ms, 95 % interval" in answer.out
    assert "threads: 1" in answer.out
    assert "note: fp16: outputs differ by" in answer.out
    answer = run("run", artifact)
    assert "logits" in answer.out
    assert "the inputs were random" in answer.out
    answer = run("bench", artifact, tmp_path / "half", "--repeats", "6", "--no-pin", "--threads", "1")
    assert "95 % interval" in answer.out
    assert "not pinned" in answer.out
    assert run("compile", DIGITS, "-o", tmp_path / "half", "--no-measure", "-q") == (0, "", "")
    assert json.loads((tmp_path / "half" / "manifest.json").read_text())["latency"] is None


def test_arrays_go_in_and_out_under_any_name(run: Run, tmp_path: Path) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    model.graph.outputs[0].name = "file"
    ir.save(model, tmp_path / "neg.onnx")
    run("compile", tmp_path / "neg.onnx", "-o", tmp_path / "neg", "-q", "--no-measure")
    np.save(tmp_path / "x.npy", np.array([1, -2]))
    assert run("run", tmp_path / "neg", "-i", tmp_path / "x.npy", "-o", tmp_path / "y.npz", "-q").code == 0
    assert np.array_equal(np.load(tmp_path / "y.npz")["file"], np.float32([-1, 2]))


def test_the_gate_compares_equal_work(run: Run, tmp_path: Path) -> None:
    ir.save(parse("g (float[2] x) => (float[2] y) { y = Neg(x) }"), tmp_path / "neg.onnx")
    both = ("bench", DIGITS, tmp_path / "neg.onnx", "--threads", "1", "--repeats", "2")
    answer = run(*both)
    assert answer.code == 0
    assert "note: not the same work, and not compared" in answer.out
    refused = run(*both, "--gate")
    assert refused.code == 2
    assert "--gate: not the same work" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("compile DIGITS", 2, "where to? Give --output DIR"),
        ("compile DIGITS -o NEW --backend levitation", 2, "no backend 'levitation'; there are: onnxruntime"),
        ("compile DIGITS -o NEW --target moon", 2, "no target 'moon'"),
        ("compile DIGITS -o NEW --tune 5", 2, "--tune is for --backend tvm, and onnxruntime has no such option"),
        ("compile DIGITS -o NEW --rpc board:9090", 2, "--rpc is for --backend tvm"),
        ("compile DIGITS -o NEW --precision int3", 2, "no precision 'int3'"),
        ("compile DIGITS -o NEW --precision int8-static", 2, "give --calib PATH"),
        ("compile DIGITS -o NEW --calib-limit 3", 2, "--calib-limit says how to read data and there are none"),
        ("compile DIGITS -o NEW --calib synthetic", 2, "calibration inputs are for int8-static"),
        ("compile DIGITS -o FOLDER", 2, "exists and is not an artifact of graphprune"),
        ("compile NOWHERE -o NEW", 3, "no such file"),
        ("run NOWHERE", 3, "no such folder"),
        ("run FOLDER", 3, "no artifact, it has no manifest.json"),
        ("run ARTIFACT -i NOWHERE", 3, "cannot be read"),
        ("run ARTIFACT -i TEXT", 3, "not an .npz or .npy"),
        ("run ARTIFACT -i OTHER", 2, "has no input 'other'; it has: images"),
        ("run ARTIFACT -i OTHER --dims n=2", 2, "--dims is for inputs that are made up"),
        ("run ARTIFACT -o NEW", 2, "outputs are written as an .npz"),
        ("run DIGITS", 3, "is a file; an artifact is the folder that `graphprune compile` writes"),
        ("bench DIGITS --rpc board:9090", 2, "--rpc is for devices with a server of TVM's: give --backend tvm"),
        ("bench DIGITS --gate", 2, "--gate compares others with the first model"),
        ("bench DIGITS FOLDER", 3, "no artifact"),
    ],
)
def test_refusals(run: Run, artifact: Path, tmp_path: Path, arguments: str, code: int, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("text")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    places = {
        "DIGITS": DIGITS,
        "ARTIFACT": artifact,
        "NEW": tmp_path / "new",
        "NOWHERE": tmp_path / "nowhere",
        "FOLDER": tmp_path / "folder",
        "TEXT": tmp_path / "folder" / "text",
        "OTHER": tmp_path / "other.npz",
    }
    answer = run(*(places.get(word, word) for word in arguments.split()))
    assert answer.code == code
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert not (tmp_path / "new").exists()
