from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphprune import demo
from graphprune.cli import main
from graphprune.models import accuracy, digits_test


def test_the_demo_prunes_the_shipped_network(tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    shown = demo.run(0.5, output=slim, repeats=3)
    assert shown.result.verified
    rows = {row.name: row for row in shown.rows}
    assert rows["parameters"].after < 0.6 * rows["parameters"].before
    assert rows["bytes of the file"].after == slim.stat().st_size
    assert shown.result.bytes.after <= slim.stat().st_size < rows["bytes of the file"].before / 2
    assert rows["accuracy"].before >= 0.985
    assert rows["accuracy"].after == accuracy(slim, digits_test())
    assert rows["accuracy"].after >= 0.95
    assert rows["milliseconds for 600 images"].after > 0
    assert rows["accuracy"].texts[0] == "99.17%"


def test_the_demo_keeps_nothing_unless_asked(tmp_path: Path) -> None:
    shown = demo.run(0.25, repeats=1)
    assert shown.rows[1].after < shown.rows[1].before
    assert not list(tmp_path.iterdir())
    assert shown.result.output is None or not Path(shown.result.output).exists()


def test_the_document_names_no_file_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] is None
