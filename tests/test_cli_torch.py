"""The command line on PyTorch modules and ``.pt2`` files."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402

import graphprune  # noqa: E402
from graphprune.cli import main  # noqa: E402

pytestmark = pytest.mark.torch

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.one, self.two = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, tokens, scale=None):
        y = self.two(self.one(self.embed(tokens)).relu())
        return y if scale is None else y * scale


def make():
    torch.manual_seed(0)
    return Net().eval()


def broken():
    raise ValueError("no such weights")


number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_networks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_prune_a_factory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--input", "2x7:int64<20", "--ratio", "0.5", "-o", "slim", "--plan", "plan.json"]
    code, answer, _ = run(capsys, "prune", "own_networks:make", *options)
    assert code == 0
    assert (answer["status"], answer["verified"], answer["way"]) == ("pruned", True, "module")
    module = graphprune.load(folder / "slim")
    assert sum(p.numel() for p in module.parameters()) == answer["params"]["after"]
    options = ["--input", "2x7:int64<20", "-o", "again"]
    code, again, _ = run(capsys, "apply", "plan.json", "own_networks:make", *options)
    assert code == 0
    assert again["params"] == answer["params"]


def test_inspect_and_explain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer, _ = run(
        capsys, "inspect", "own_networks:make", "--input", "tokens=2x7:int64<20", "--input", "scale=scalar"
    )
    assert code == 0
    assert {group["size"] for group in answer["groups"]} == {16, 32}
    code, answer, _ = run(capsys, "explain", "own_networks:make", "two.weight:1", "--input", "2x7:int64<20")
    assert code == 0


def test_pt2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    program = torch.export.export(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.randn(2, 4),))
    torch.export.save(program, folder / "net.pt2")
    code, answer, _ = run(capsys, "prune", "net.pt2", "--ratio", "0.5", "-o", "slim")
    assert code == 0
    assert (answer["status"], answer["way"]) == ("pruned", "graph")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("harm",))


def test_pt2_with_a_pickle_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(folder / "bad.pt2", "w") as archive:
        archive.writestr("bad/archive_format", "pt2")
        archive.writestr("bad/data/sample_inputs/model.pt", pickle.dumps(Harmful()))
    code, answer, error = run(capsys, "prune", "bad.pt2", "--ratio", "0.5", "-o", "slim")
    assert code == 3
    assert "harm" not in error
    assert "pickled" in answer["error"]["message"]
    assert not (folder / "slim").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["own_networks:make"], 2, "--input"),
        (["own_networks:missing", "--input", "2x7:int64<20"], 2, "cannot be imported"),
        (["no_such_module:make", "--input", "2x7:int64<20"], 2, "cannot be imported"),
        (["own_networks:number", "--input", "2x7"], 3, "factory failed"),
        (["own_networks:broken", "--input", "2x7"], 3, "no such weights"),
        (["own_networks:make", "--input", "2x7:int65"], 2, "is not"),
        (["own_networks:make", "--input", "two"], 2, "is not"),
        (["own_networks:make", "--input", "2x7"], 3, "cannot export"),
        (["missing.pt2"], 3, "cannot be read"),
    ],
)
def test_errors(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    found, answer, error = run(capsys, "prune", *arguments, "--ratio", "0.5", "-o", "slim")
    assert (found, message in answer["error"]["message"]) == (code, True), answer
    assert len(error.strip().splitlines()) == 1
    assert not (folder / "slim").exists()


def test_target_out_of_reach_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--input", "2x7:int64<20", "--params", "0.1%", "-o", "slim"]
    code, answer, _ = run(capsys, "prune", "own_networks:make", *options)
    assert (code, answer["status"]) == (4, "refused")
    assert not (folder / "slim").exists()
