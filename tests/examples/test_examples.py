"""The examples run, for a few steps each."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the libraries' own, of which there are many

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str, *needed: str) -> Any:
    from torch_vision import declare_operators

    declare_operators()
    for package in needed:
        pytest.importorskip(package)
    return importlib.import_module(name)


def test_prune_and_tune(tmp_path: Path) -> None:
    module = example("prune_and_tune", "sklearn", "safetensors", "onnxscript")
    found = module.main(steps=30, output=tmp_path / "slim")
    assert list(found) == ["dense", "pruned", "pruned, tuned", "dense, tuned (control)"]
    assert found["pruned, tuned"] > found["pruned"]
    assert {path.suffix for path in (tmp_path / "slim").iterdir()} >= {".onnx", ".safetensors"}


def test_lightning_callback() -> None:
    assert example("lightning_callback", "sklearn", "lightning").main(steps=20) > 0.3


def test_accelerate_loop() -> None:
    assert example("accelerate_loop", "sklearn", "accelerate").main(steps=20) > 0.3


def test_hf_trainer() -> None:
    assert example("hf_trainer", "transformers", "accelerate").main(steps=10) > 0.3
