"""The benchmark of TVM on the network that ships: compared, tuned twice with one database, and raced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_models import parse
from tvm_programs import needs_tvm

from graphprune.models import digits_path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "compiled.py"

pytestmark = needs_tvm


def run(*arguments: object, results: Path) -> tuple[str, list[dict]]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments), "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, [json.loads(line) for line in results.read_text().splitlines()]


def test_networks_are_compared_or_refused_by_name(tmp_path: Path) -> None:
    lstm = parse(
        "g (float[5, 1, 3] x) => (float[5, 1, 1, 4] y) { y = LSTM<hidden_size=4>(x, w, r) }",
        w=np.ones((1, 16, 3), np.float32),
        r=np.ones((1, 16, 4), np.float32),
    )
    ir.save(lstm, tmp_path / "recurrent.onnx")
    shown, rows = run("--part", "corpus", digits_path(), tmp_path / "recurrent.onnx", results=tmp_path / "rows")
    assert rows[0]["error"] < 1e-4
    assert "LSTM" in rows[1]["refused"]
    assert "| digits | " in shown
    assert "1 of 2 are compiled. Refused:" in shown


def test_tuning_again_reuses_what_was_measured(tmp_path: Path) -> None:
    options = ("--network", "digits", "--trials", 2, "--again", 2, "--repeats", 12)
    shown, rows = run("--part", "tuned", *options, results=tmp_path / "rows")
    assert [(row["model"], row["runtime"]) for row in rows] == [
        (model, runtime) for model in ("dense", "slim") for runtime in ("ONNX Runtime", "TVM, not tuned", "TVM, tuned")
    ]
    assert rows[3]["macs"] <= 0.5 * rows[0]["macs"]
    assert all(row["ms"] > 0 for row in rows)
    assert "tuning:" in rows[2]["note"]
    assert "| slim | " in shown
