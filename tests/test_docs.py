"""The examples of the documentation run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from graphprune.models import digits_path

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[str]:
    """The Python examples of a page."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found, page
    return found


def test_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(digits_path(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for block in blocks("latency.md"):
        # Whether this machine runs the small network faster is not what is tested.
        exec(block.replace("threads=1)\nprint(found.c", "threads=1, allow_slower=True)\nprint(found.c"), {})
    out = capsys.readouterr().out
    assert "95 % interval" in out
    assert "verified" in out or "True" in out
    assert "round-to auto:" in out
    assert (tmp_path / "slim-artifact" / "manifest.json").exists()
