"""The versions that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__", "versions"]


def _of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


__version__ = _of("graphprune")


def versions() -> dict[str, str]:
    """Versions of graphprune and of the libraries whose behaviour enters a plan."""
    return {name: _of(name) for name in ("graphprune", "onnx", "onnx-ir", "onnxruntime", "numpy")}
