"""The targets of TVM: what code is made for, how it is linked, and the device that it runs on."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.backends.base import Target
from graphprune.backends.machine import processors
from graphprune.errors import UsageError

__all__ = [
    "TARGETS",
    "TargetInfo",
    "compute_capability",
    "cores",
    "description",
    "features",
    "info_of",
    "is_here",
    "lacking",
    "linker",
    "targets_of",
]


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What TVM is told about a target.

    Args:
        kind: TVM's name for the code generator.
        attributes: of the target, as TVM spells them.
        processor: what code is made for where nothing else is said.
        machine: the machine (``platform.machine()``) that runs it; the one at hand where it is empty.
        linker: the command that links a library for it; the compiler at hand where it is empty.
        remedy: what brings that command.
        device: TVM's name for the device.
        binary: the name of what is stored, if it is no shared library.
    """

    kind: str
    attributes: tuple[tuple[str, Any], ...] = ()
    processor: str | None = None
    machine: str = ""
    linker: str = ""
    remedy: str | None = None
    device: str = "cpu"
    binary: str = "model.so"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, whose programs need a schedule to be valid."""
        return self.device != "cpu"


TARGETS = {
    "cpu": TargetInfo("llvm"),
    "aarch64": TargetInfo(
        "llvm",
        (("mtriple", "aarch64-linux-gnu"), ("mattr", ["+neon"])),
        "generic",
        "aarch64",
        "aarch64-linux-gnu-gcc",
        "apt install gcc-aarch64-linux-gnu, or link the objects that are written without it",
    ),
    "riscv64": TargetInfo(
        "llvm",
        (
            ("mtriple", "riscv64-unknown-linux-gnu"),
            ("mattr", ["+m", "+a", "+f", "+d", "+c"]),
            ("mabi", "lp64d"),
        ),
        "generic-rv64",
        "riscv64",
        "riscv64-linux-gnu-gcc",
        "apt install gcc-riscv64-linux-gnu, or link the objects that are written without it",
    ),
    "c": TargetInfo("c", binary="model.tar"),
    "cuda": TargetInfo(
        "cuda",
        (
            ("max_threads_per_block", 1024),
            ("max_shared_memory_per_block", 49152),
            ("thread_warp_size", 32),
            ("registers_per_block", 65536),
        ),
        "sm_75",
        device="cuda",
    ),
    "opencl": TargetInfo(
        "opencl",
        (("max_threads_per_block", 256), ("max_shared_memory_per_block", 16384), ("thread_warp_size", 1)),
        device="opencl",
    ),
}

VECTORS = ("avx", "bmi", "f16c", "fma", "gfni", "sha", "sse", "vaes", "vpclmul")
"""How the features of x86 begin that code is made of; LLVM and Linux give them the same names, but for signs.

Those of AMX are left out: a program has to ask the system for them first.
"""


def targets_of() -> tuple[Target, ...]:
    """All targets; code is made for each of them everywhere, and linked where there is a linker."""
    found = []
    for name, info in TARGETS.items():
        there = not info.linker or linker(info) is not None
        found.append(Target(name, there, None if there else info.remedy))
    return tuple(found)


def info_of(target: str) -> TargetInfo:
    """What is known of a target.

    Raises:
        UsageError: there is none of that name.
    """
    if target not in TARGETS:
        raise UsageError(f"TVM has no target '{target}'; it has: {', '.join(TARGETS)}")
    return TARGETS[target]


def is_here(info: TargetInfo) -> bool:
    """Whether its machine is the one at hand; a GPU's device is looked for elsewhere."""
    return not info.machine or (platform.system() == "Linux" and platform.machine() == info.machine)


def linker(info: TargetInfo) -> str | None:
    """The command that links for a target, if it is there."""
    if not info.linker:
        return os.environ.get("CXX") or os.environ.get("CC") or _first("g++", "gcc", "clang++", "clang", "c++", "cc")
    if is_here(info):
        return _first(info.linker, "gcc", "cc")
    return _first(info.linker)


def cores(threads: int | None) -> int:
    """How many threads a program uses: ``threads``, or one for each processor that this process may use."""
    return threads or len(processors()) or os.cpu_count() or 1


def description(tvm: Any, info: TargetInfo, processor: str | None, threads: int | None) -> Any:
    """TVM's object for a target; on the CPU at hand with the features that it really has.

    Raises:
        UsageError: TVM does not know the processor.
    """
    document: dict[str, Any] = {"kind": info.kind, **dict(info.attributes)}
    if info.kind == "llvm":
        document["num-cores"] = cores(threads)
        document["mcpu"] = processor or info.processor or tvm.target.codegen.llvm_get_system_cpu()
        if "mtriple" in document:
            triple = document["mtriple"]
        else:
            triple = tvm.target.codegen.llvm_get_system_triple()
        if not tvm.target.codegen.llvm_is_valid_cpu(document["mcpu"], triple):
            raise UsageError(f"LLVM knows no processor '{document['mcpu']}' of {triple}; leave --processor out")
        if not processor and not info.processor and (real := _real()):
            stated = set(features(tvm, tvm.target.Target(document)))
            corrected = [f"-{name}" for name in sorted(stated - real)] + [f"+{name}" for name in sorted(real - stated)]
            document.update({"mattr": corrected} if corrected else {})
    elif processor is not None and info.kind != "cuda":
        raise UsageError(f"the target {info.kind} has no processors to choose from; leave --processor out")
    elif info.kind == "cuda":
        if processor is not None and re.fullmatch(r"sm_\d+[a-z]?", processor) is None:
            raise UsageError(f"'{processor}' is no GPU of NVIDIA's: give --processor as sm_80, or leave it out")
        document["arch"] = processor or compute_capability(tvm) or info.processor
    if not info.is_gpu:
        return tvm.target.Target(document)
    return tvm.target.Target({**document, "host": {"kind": "llvm"}})


def compute_capability(tvm: Any) -> str | None:
    """What the GPU at hand is called, if there is one: ``sm_90``."""
    device = tvm.cuda(0)
    return f"sm_{str(device.compute_version).replace('.', '')}" if device.exist else None


def features(tvm: Any, target: Any) -> list[str]:
    """The vector instructions of x86 that code for a target may be made of, sorted."""
    found = {str(name) for name in tvm.target.codegen.llvm_get_cpu_features(target)}
    for each in map(str, target.attrs.get("mattr", ())):
        (found.add if each.startswith("+") else found.discard)(each[1:])
    return sorted(name for name in found if name.startswith(VECTORS))


def lacking(needed: Iterable[str]) -> list[str]:
    """Which of these instructions the processor at hand does not have; none where the system does not tell."""
    real = _real()
    return [name for name in needed if name not in real] if real else []


def _real() -> frozenset[str]:
    """The vector instructions that the processor at hand has, by LLVM's names.

    A virtual machine may hide some, and LLVM takes a processor that it does not know for an older one.
    """
    return frozenset(name for name in map(_llvm_name, _flags()) if name.startswith(VECTORS))


def _llvm_name(flag: str) -> str:
    """``sse4_1`` is ``sse4.1``, and ``avx512_vnni`` is ``avx512vnni``."""
    renamed = {"bmi1": "bmi", "pni": "sse3", "sha_ni": "sha"}
    return renamed.get(flag) or flag.replace("_", "." if flag.startswith("sse") else "")


def _flags() -> frozenset[str]:
    """What the processor says it can do; nothing where the system does not tell, or it is no x86."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def _first(*commands: str) -> str | None:
    return next((command for command in commands if shutil.which(command)), None)
