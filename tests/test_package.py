"""What every module of the package must have, whatever it is about."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

import graphprune
import graphprune.backends
import graphprune.models
import graphprune.passes

ROOT = Path(__file__).parent.parent
PACKAGES = (graphprune, graphprune.backends, graphprune.models, graphprune.passes)
MODULES = sorted(
    {package.__name__ for package in PACKAGES}
    | {
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    }
)
OPTIONAL = ("torch", "safetensors")
"""What the extra ``torch`` installs and modules of the PyTorch host import."""

FOLDERS = {"graphprune": "graphprune", "backends": "graphprune.backends", "models": "graphprune.models"}
FOLDERS["passes"] = "graphprune.passes"


def test_every_folder_of_code_is_packaged() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join([FOLDERS[folder], *file.parent.relative_to(ROOT / folder).parts])
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        if "data" not in file.parts
    }
    assert set(configuration["packages"]) == found


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    """It imports, says what it is, exports what exists and is documented, and its examples run."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        documented = value.__doc__ if inspect.isclass(value) or inspect.isfunction(value) else True
        assert documented, f"{name}.{public} has no docstring"
    assert doctest.testmod(module).failed == 0
