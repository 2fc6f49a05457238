"""From a Relax module to a library: the passes in their order, code generation, and linking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.backends.quiet import quiet
from graphprune.backends.tvm.cpu_schedule import PlainCpu
from graphprune.backends.tvm.package import library
from graphprune.backends.tvm.signals import deferred
from graphprune.backends.tvm.targets import TargetInfo, is_here, linker
from graphprune.errors import ModelError
from graphprune.text import first_line

__all__ = ["built", "fused", "linked", "lowered", "scheduled"]

LOWERING = (
    "RewriteDataflowReshape",
    "ToNonDataflow",
    "RemovePurityChecking",
    "CallTIRRewrite",
    "StaticPlanBlockMemory",
    "LowerAllocTensor",
    "KillAfterLastUse",
    "LowerRuntimeBuiltin",
    "ComputePrimValue",
    "VMShapeLower",
    "AttachGlobalSymbol",
)
"""Relax's passes from loops to the instructions of its machine, as in TVM's own pipelines, which end in others."""

RULES = ("Matmul", "GEMV", "Reduction", "GeneralReduction", "Fallback")
"""The rules of dlight that TVM's own pipelines for GPUs apply, in their order; the last one fits everything."""


class _Guarded:
    """A rule that leaves a function to the next one where it fails, as dlight's do on some fused convolutions."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def apply(self, function: Any, target: Any, tunable: bool) -> Any:
        """The schedule, or None."""
        try:
            return self._rule.apply(function, target, tunable)
        except Exception:  # whatever a rule comes upon
            return None


def fused(module: Any, target: Any) -> Any:
    """``module`` as loops: one function for each group of operators, which is what schedules are found for."""
    tvm = library()
    relax = tvm.relax
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    with deferred(), quiet(), target, tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)


def scheduled(module: Any, target: Any, database: Any = None) -> Any:
    """What :func:`fused` gives with the schedules that a database of MetaSchedule has.

    The rest gets default schedules: on a GPU those of dlight, without which it would not be valid, and on a CPU ours.
    """
    tvm = library()
    from tvm.s_tir import dlight

    with deferred(), quiet(), target, tvm.transform.PassContext(opt_level=3):
        if database is not None:
            with database:
                module = tvm.relax.transform.MetaScheduleApplyDatabase()(module)
        rules = [getattr(dlight.gpu, name)() for name in RULES] if "gpu" in target.keys else [PlainCpu()]
        # dlight's pass writes to the module that it is given
        return dlight.ApplyDefaultSchedule(*map(_Guarded, rules))(module.clone())


def lowered(module: Any) -> Any:
    """What :func:`scheduled` gives as instructions of Relax's machine."""
    tvm = library()
    return tvm.transform.Sequential([getattr(tvm.relax.transform, name)() for name in LOWERING])(module)


def built(module: Any, target: Any) -> Any:
    """TVM's executable of what :func:`scheduled` gives."""
    tvm = library()
    with deferred(), quiet(), target, tvm.transform.PassContext(opt_level=3):
        return tvm.compile(module, target=target, relax_pipeline=lowered)


def linked(executable: Any, info: TargetInfo, folder: Path) -> tuple[Path, str]:
    """Write an executable to ``folder``; returns the file, and a note where it still has to be linked.

    Raises:
        ModelError: the linker fails.
    """
    from tvm.support import cc

    path, command = folder / info.binary, linker(info)
    note = ""
    if path.suffix != ".tar" and command is None:
        path = folder / "model.tar"
        command_name = info.linker or "a C compiler"
        note = f"{command_name} is not installed, so that objects were written that are not linked: {info.remedy}"
    try:
        with deferred(), quiet():
            if path.suffix == ".tar" or not info.linker or is_here(info):
                executable.export_library(str(path))
            else:
                executable.export_library(str(path), fcompile=cc.cross_compiler(command))
    except Exception as error:  # the linker's words come as a RuntimeError
        raise ModelError(f"{path.name}: cannot be linked ({first_line(error)})") from error
    return path, note
