"""Pruning as a pass of Olive: with its own classes where it is installed, and what is said where it is not."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import graphprune
from graphprune import olive
from graphprune.errors import ModelError, TargetError, UsageError
from graphprune.models import accuracy, digits_path, digits_test


@pytest.fixture(name="installed")
def _installed() -> Any:
    """Olive's module of passes."""
    pytest.importorskip("torch")
    from torch_vision import declare_operators

    declare_operators()
    with warnings.catch_warnings():  # what Olive imports warns of its own
        warnings.simplefilter("ignore")
        return pytest.importorskip("olive.passes.olive_pass", exc_type=ImportError)


def pruned(installed: Any, output: Path, **config: Any) -> Any:
    handler = importlib.import_module("olive.model").ONNXModelHandler
    step = installed.create_pass_from_dict(olive.GraphprunePass, config, disable_search=True)
    return step.run(handler(model_path=str(digits_path())), str(output))


def test_a_workflow_prunes(installed: Any, tmp_path: Path) -> None:
    found = pruned(installed, tmp_path / "out", ratio=0.5, round_to="4")
    expected = graphprune.prune(digits_path(), ratio=0.5, round_to=4)
    slim = Path(found.model_path)
    assert slim.is_relative_to(tmp_path / "out")
    assert graphprune.inspect(slim).counts.macs == expected.macs.after
    assert accuracy(slim, digits_test()) > 0.9


def test_a_package_configuration_finds_it(installed: Any) -> None:
    module = importlib.import_module("olive.package_config")
    runs_on = {"supported_providers": ["*"], "supported_accelerators": ["*"], "supported_precisions": ["*"]}
    entry = {"module_path": "graphprune.olive.GraphprunePass", **runs_on}
    package = module.OlivePackageConfig.model_validate({"passes": {"GraphprunePass": entry}})
    assert package.import_pass_module("GraphprunePass") is olive.GraphprunePass
    assert installed.Pass.registry["graphprunepass"] is olive.GraphprunePass


def test_what_is_not_met_is_an_error(installed: Any, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="out of reach"):
        pruned(installed, tmp_path / "out", macs="0.001%")
    with pytest.raises(UsageError, match="exclude each other"):
        pruned(installed, tmp_path / "out", macs="50%", ratio=0.5)


def test_without_olive_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    olive._made.cache_clear()
    monkeypatch.setitem(sys.modules, "olive.model", None)
    with pytest.raises(ModelError, match=r"Olive does not import .*; pip install 'graphprune\[olive\]'"):
        _ = olive.GraphprunePass
    olive._made.cache_clear()


def test_it_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PrunePass'"):
        _ = olive.PrunePass
