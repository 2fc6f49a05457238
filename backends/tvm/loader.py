"""Loads and runs what is in this folder with TVM's runtime alone: python load.py inputs.npz outputs.npz"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def library(path: Path, folder: Path, command: str | None = None) -> Path:
    """A shared library of what is in ``path``; objects and C sources are linked in ``folder``."""
    if path.suffix != ".tar":
        return path
    import tvm
    import tvm_ffi

    command = command or os.environ.get("CC") or "cc"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        archive.extractall(folder, filter="data")
    tool = tvm_ffi.libinfo
    headers = (tvm.libinfo.find_include_path(), tool.find_include_path(), tool.find_dlpack_include_path())
    target = folder / "model.so"
    options = ["-shared", "-fPIC", "-O2", *(f"-I{each}" for each in headers)]
    subprocess.run([command, *options, "-o", target, *names, "-lm"], cwd=folder, check=True, capture_output=True)
    return target


def machine(path: Path, device: str) -> Any:
    """TVM's machine that runs a shared library on a device, and the device."""
    import tvm
    from tvm.runtime.vm import VirtualMachine

    where = tvm.runtime.device(device, 0)
    return VirtualMachine(tvm.runtime.load_module(str(path)), where), where


def load(folder: Path = Path(__file__).parent) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function of arrays by name that gives the outputs by name."""
    import tvm

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        path = library(folder / manifest["binary"], Path(scratch))
        program, device = machine(path, manifest["options"]["device"])
    names = [[spec["name"] for spec in manifest[kind]] for kind in ("inputs", "outputs")]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = program["main"](*(tvm.runtime.tensor(inputs[name], device) for name in names[0]))
        results = [found] if hasattr(found, "numpy") else list(found)
        return {name: value.numpy() for name, value in zip(names[1], results, strict=True)}

    return run


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python load.py INPUTS.npz OUTPUTS.npz")
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    import numpy as np

    outputs = load()(dict(np.load(sys.argv[1])))
    np.savez(sys.argv[2], **outputs)
