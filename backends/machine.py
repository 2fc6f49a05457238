"""What a measurement was made on, and how to keep it on the same processors."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphprune.errors import UsageError

__all__ = ["machine", "pinned", "processors", "processors_for"]


def machine() -> dict[str, Any]:
    """The system, architecture, processor and number of processors, as JSON types."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count() or 1,
        "python": platform.python_version(),
    }


def processors() -> list[int]:
    """The processors that this process may run on; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def processors_for(threads: int) -> list[int]:
    """The processors to pin ``threads`` threads to: one a core first, the last ones first.

    Processor 0 serves most interrupts, and two hardware threads of one core slow each other down.
    """
    allowed = processors()
    seen: set[object] = set()
    first: list[int] = []
    second: list[int] = []
    for processor in reversed(allowed):
        core = _core(processor)
        (second if core in seen else first).append(processor)
        seen.add(core)
    return sorted((first + second)[:threads])


@contextlib.contextmanager
def pinned(threads: int | None) -> Iterator[list[int]]:
    """Keep the calling thread, and the threads that it starts meanwhile, on as many processors as ``threads``.

    Gives the processors; none, and nothing changes, where ``threads`` is None, or the system does not allow it. A
    runtime that has its threads already is not reached, so sessions belong inside.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    before = processors()
    chosen = processors_for(threads) if threads is not None else []
    if not chosen:
        yield []
        return
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:  # a container may forbid it
        yield []
        return
    try:
        yield chosen
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _core(processor: int) -> object:
    """What tells the core of a processor; the processor itself where the system does not say."""
    folder = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
    try:
        return tuple((folder / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return processor


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
