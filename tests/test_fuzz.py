"""Damaged models are refused in one line: no traceback, no crash, no hang, nothing left behind.

Cases run in processes of their own, so that a native crash is seen; `python -m fuzzing` in this folder repeats one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("GRAPHPRUNE_CORPUS"), reason="GRAPHPRUNE_CORPUS is not set"),
]

LOAD_CASES, PRUNE_CASES = 1500, 100


def fuzz(mode: str, folder: Path, first: int, count: int) -> None:
    command = [sys.executable, "-W", "error", "-m", "fuzzing", mode, str(folder), str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    number = folder / "number"
    at = number.read_text() if number.exists() else "none"
    assert done.returncode == 0, f"{mode}, case {at}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert "opened" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("batch", range(4))
def test_opening_damaged_models(tmp_path: Path, batch: int) -> None:
    fuzz("load", tmp_path, batch * LOAD_CASES, LOAD_CASES)


@pytest.mark.parametrize("batch", range(2))
def test_pruning_damaged_models_that_open(tmp_path: Path, batch: int) -> None:
    fuzz("prune", tmp_path, 100_000 + batch * 10_000, PRUNE_CASES)
