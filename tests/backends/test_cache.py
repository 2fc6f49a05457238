"""Where the cache is."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphprune.backends import cache
from graphprune.backends.cache import cache_folder
from graphprune.backends.tvm.options import TvmOptions


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "graphprune"
    monkeypatch.setattr(cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "y"))
    assert cache_folder() == tmp_path / "y" / "graphprune"
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert cache_folder().parts[-3:] == ("Library", "Caches", "graphprune")


def test_tuned_schedules_are_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert TvmOptions().folder == tmp_path / "tvm"
