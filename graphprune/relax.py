"""Steps for pipelines of Apache TVM: a pruned model as a Relax module, and this library's passes as Relax's pipeline.

Relax modules are pruned before they are imported, as ONNX models, because there coupling is known and the result is
proven. ``module`` does both; what it gives goes through any of Relax's pipelines, ``pipeline`` among them::

    import tvm
    from graphprune import relax

    module = relax.module("model.onnx", macs="50%", dims={"n": 1})
    executable = tvm.compile(module, target="llvm", relax_pipeline=relax.pipeline())
    machine = tvm.relax.VirtualMachine(executable, tvm.cpu())

Importing this module does not import TVM (the extra ``tvm``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphprune.errors import UsageError

__all__ = ["NAME", "module", "pipeline", "register"]

NAME = "graphprune"
"""The pipeline's name for ``tvm.relax.get_pipeline``, after :func:`register`."""


def module(model: Any, *, dims: Mapping[str, int] | None = None, **options: Any) -> Any:
    """The ``tvm.IRModule`` of an ONNX model that was pruned; its parameters are constants of its function ``main``.

    Args:
        model: as :func:`graphprune.prune` takes it, but no module of PyTorch.
        dims: sizes of symbolic dimensions, which the module is made for; others stay open.
        options: those of :func:`graphprune.prune`, a budget among them.

    Raises:
        GraphpruneError: as :func:`graphprune.prune`; ModelError where TVM's front end does not support an operator,
            with its name; UsageError where TVM is not installed, or ``model`` is PyTorch's.
    """
    from graphprune.api import prune
    from graphprune.backends.tvm.importing import from_onnx
    from graphprune.backends.tvm.package import library
    from graphprune.frontends.program import is_torch

    library()
    if is_torch(model):
        raise UsageError("Relax modules are made of ONNX models: export the module first (graphprune.storage.to_onnx)")
    slim = prune(model, dims=dims, **options).model
    return from_onnx(slim, "the slim model", dims).module


def pipeline(*, database: str | os.PathLike[str] | None = None) -> Any:
    """The passes of the backend ``tvm`` as one of Relax's: ``relax_pipeline`` of ``tvm.compile``.

    From operators to the instructions of Relax's machine, for the target that TVM compiles for: fusion, schedules that
    tuning found (``graphprune compile --tune``) where ``database`` is its folder, plain ones for the rest, lowering.

    Raises:
        UsageError: TVM is not installed. The pass raises it where the folder holds nothing for the target.
    """
    from graphprune.backends.tvm.building import fused, lowered, scheduled
    from graphprune.backends.tvm.package import library
    from graphprune.backends.tvm.tuning import stored_database

    tvm = library()

    def transform(module: Any, _context: Any) -> Any:
        target = tvm.target.Target.current(allow_none=True)
        if target is None:
            raise UsageError("the pipeline of graphprune needs a target: with tvm.target.Target(...), or tvm.compile's")
        known = None if database is None else stored_database(Path(database), target)
        return lowered(scheduled(fused(module, target), target, known))

    return tvm.transform.module_pass(transform, opt_level=0, name=NAME)


def register() -> None:
    """Make :func:`pipeline` known to TVM by name: ``tvm.compile(..., relax_pipeline="graphprune")``; again is fine.

    Raises:
        UsageError: TVM is not installed.
    """
    from graphprune.backends.tvm.package import library

    known = library().relax.pipeline.PIPELINE_MAP
    if NAME not in known:
        library().relax.register_pipeline(NAME)(pipeline)
