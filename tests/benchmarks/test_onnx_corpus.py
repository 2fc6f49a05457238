from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_tiny_network_is_pruned_and_checked(tmp_path: Path) -> None:
    results = tmp_path / "rows.jsonl"
    script = str(ROOT / "benchmarks" / "onnx_corpus.py")
    command = [sys.executable, script, "--tiny", "--only", "squeezenet*", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = map(json.loads, results.read_text().splitlines())
    assert row["model"] == "squeezenet_tiny"
    assert row["verified"] is True
    assert row["check"]["differs"]
    assert row["check"]["elements_after"] == row["params"]["after"] < row["params"]["before"]
    assert "1 pruned and verified" in done.stdout
