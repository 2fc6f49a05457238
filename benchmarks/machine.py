"""The header of a benchmark: what it ran on, with which versions, by which command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["header"]


def header(packages: Sequence[str]) -> dict[str, str]:
    """Return machine, versions of ``packages`` and command, by name."""
    found = {"graphprune": _version("graphprune"), "python": platform.python_version()}
    found.update({name: _version(name) for name in packages})
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()} of memory",
        "load": f"{os.getloadavg()[0]:.1f} processes ran at the start",
        "versions": ", ".join(f"{name} {number}" for name, number in found.items()),
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return f"{int(line.split()[1]) / 1e6:.0f} GB"
    return "unknown size"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
