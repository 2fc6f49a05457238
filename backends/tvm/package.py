"""The TVM package: whether it is installed, and importing it without what it need not have."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from graphprune.errors import UsageError

__all__ = ["REMEDY", "installed", "library", "require_for_tuning", "versions"]

REMEDY = "pip install 'graphprune[tvm]'"
FOR_TUNING = ("cloudpickle", "psutil", "xgboost")
CRASHING = "0.1.15"
"""Versions of apache-tvm-ffi that begin like this crash when a tuning task is made."""


def installed() -> bool:
    """Whether TVM is there; it is not imported for that."""
    return _is_there("tvm")


def versions() -> dict[str, str]:
    """Versions of the packages that make up TVM."""
    found = {}
    for name in ("apache-tvm", "apache-tvm-ffi"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def library() -> Any:
    """The module ``tvm``.

    It imports PyTorch where that is installed, which takes seconds and which nothing here needs: it is hidden
    meanwhile.

    Raises:
        UsageError: it does not import.
    """
    if (found := sys.modules.get("tvm")) is not None:
        return found
    try:
        with _hidden("torch"):
            return import_module("tvm")
    except Exception as error:  # a broken installation raises whatever its libraries raise
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"tvm does not import ({line}): {REMEDY}") from error


def require_for_tuning() -> None:
    """Import what tuning needs besides.

    Raises:
        UsageError: a package is missing, or is of a version that crashes.
    """
    if missing := [name for name in FOR_TUNING if not _is_there(name)]:
        raise UsageError(f"tuning needs {missing[0]}: {REMEDY}")
    if versions().get("apache-tvm-ffi", "").startswith(CRASHING):
        raise UsageError(f"apache-tvm-ffi {CRASHING} crashes when it tunes: pip install 'apache-tvm-ffi!={CRASHING}.*'")
    library()
    with _cheap_modules(), _hidden("torch"):
        import_module("tvm.s_tir.tensor_intrin")


@contextlib.contextmanager
def _cheap_modules() -> Iterator[None]:
    """Leave out the search for the module of a function, which files do without.

    TVM parses its 250 intrinsics from their sources, and :mod:`inspect` looks through all modules for each frame of
    each of them: half a minute where many are loaded, four seconds without.
    """
    kept = inspect.getmodule
    inspect.getmodule = lambda object, _filename=None: None
    try:
        yield
    finally:
        inspect.getmodule = kept


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Make packages that were not imported yet look as if they were missing."""
    absent: Sequence[str] = [name for name in names if name not in sys.modules]
    modules: dict[str, Any] = sys.modules  # None in place of a module makes its import fail
    modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # of a package around it, or of one that something forbids
        return False
    except ValueError:  # a module that was put there by hand has no specification
        return True
