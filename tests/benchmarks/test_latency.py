"""The benchmark of latency on the network that ships: rows are kept, tables and plot written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_rows_are_made_once(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, page, picture = tmp_path / "rows.jsonl", tmp_path / "page.md", tmp_path / "curve.png"
    page.write_text("before\n<!-- latency: begin -->\nold\n<!-- latency: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "latency.py"), "--network", "digits", "--repeats", "6"]
    command += ["--part", "speed", "--part", "curve", "--removed", "60", "--results", str(results)]
    command += ["--markdown", str(page), "--plot", str(picture)]

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run()
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["done", "done", "done", "skipped", "done"]
    assert rows[0]["macs_after"] <= 0.5 * rows[0]["macs_before"]
    assert "| digits | graphprune |" in shown
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "### Never slower than dense" in text
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "done" not in run().split("###")[0]  # all is there already
    assert len(results.read_text().splitlines()) == 5
