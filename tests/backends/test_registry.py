"""Backends by name: graphprune's own, those of other packages, and those that are broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from graphprune.backends import registry
from graphprune.backends.base import Availability, Backend, Executable, Target
from graphprune.backends.onnxruntime.backend import OnnxRuntime
from graphprune.backends.registry import backend, listed, names, usable
from graphprune.errors import UsageError
from graphprune.models import digits_path

PLUGIN = """
from graphprune.backends.base import Availability, Target

class Edge:
    name = "edge"
    def available(self):
        return Availability(False, reason="edgert is not installed", remedy="pip install edgert")
    def targets(self):
        return (Target("npu", False, "pip install edgert"),)
    def compile(self, program, target, **options):
        raise NotImplementedError
    def load(self, folder, **options):
        raise NotImplementedError

class Nothing:
    pass

def broken():
    raise RuntimeError("no licence")
"""

Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """A function that installs entry points, given as name=value."""
    (tmp_path / "edge_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def install(**entries: str) -> None:
        made = [EntryPoint(name, value, registry.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: made if group == registry.GROUP else [])

    return install


def test_the_protocols_are_kept() -> None:
    found = backend("ort")
    assert isinstance(found, OnnxRuntime)
    assert isinstance(found, Backend)
    assert isinstance(found.compile(digits_path(), "cpu", optimize="none"), Executable)
    assert {target.name for target in found.targets() if target.available} >= {"cpu"}
    assert all(target.available != bool(target.remedy) for target in found.targets())


def test_other_packages_offer_backends(offer: Offer) -> None:
    offer(edge="edge_plugin:Edge")
    assert names() == ("onnxruntime", "tvm", "edge")
    assert backend("edge").targets() == (Target("npu", False, "pip install edgert"),)
    with pytest.raises(UsageError, match="'edge' cannot be used, edgert is not installed: pip install edgert"):
        usable("edge")
    with pytest.raises(UsageError, match="no backend 'levitation'; there are: onnxruntime, tvm, edge"):
        backend("levitation")


def test_broken_ones_are_listed_with_the_reason(offer: Offer) -> None:
    offer(edge="edge_plugin:Edge", away="no_such_module:Edge", empty="edge_plugin:Nothing", sad="edge_plugin:broken")
    found = {entry.name: entry.to_dict() for entry in listed()}
    assert found["onnxruntime"]["available"]
    assert found["edge"]["remedy"] == "pip install edgert"
    assert "does not import (No module named 'no_such_module')" in found["away"]["reason"]
    assert "is a Nothing, which is no Backend" in found["empty"]["reason"]
    assert "cannot be made (no licence)" in found["sad"]["reason"]
    assert not any(found[name]["available"] for name in ("edge", "away", "empty", "sad"))


def test_nobody_takes_the_place_of_ours(offer: Offer) -> None:
    offer(onnxruntime="edge_plugin:Edge", ort="edge_plugin:Edge")
    assert names() == ("onnxruntime", "tvm")
    assert isinstance(backend("ort"), OnnxRuntime)


def test_a_missing_runtime_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    state = OnnxRuntime().available()
    assert not state.ok
    assert state.text.startswith("onnxruntime does not import")
    assert state.text.endswith(": pip install onnxruntime")


def test_availability_in_words() -> None:
    assert Availability(True, version="1.2").text == "installed (1.2)"
    assert Availability(True).text == "installed"
    assert Availability(False, reason="no device").text == "no device"


def test_the_interface_does_not_import_the_converters() -> None:
    script = """
import sys
from graphprune.backends.registry import backend
backend("ort").targets()
heavy = [name for name in sys.modules if name.startswith(("onnxruntime.quantization", "onnxruntime.tools", "torch"))]
assert not heavy, heavy
"""
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
