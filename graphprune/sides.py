"""Programs of either host as sides of a replay (see :mod:`graphprune.replay`), and plans made to fit them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx_ir as ir

from graphprune import passes
from graphprune.correspondence import Side
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_fingerprint import fingerprint
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_weights import weights_of
from graphprune.frontends.program import is_torch
from graphprune.plan import Plan
from graphprune.replay import replay

if TYPE_CHECKING:
    from graphprune.frontends.torch_program import TorchProgram

__all__ = ["Model", "model_side", "module_side", "plan_for_model", "plan_for_module"]

Model: TypeAlias = str | os.PathLike[str] | ir.Model | onnx.ModelProto


def plan_for_module(plan: Plan, program: TorchProgram, source: Model | TorchProgram | None = None) -> Plan:
    """``plan`` as it is carried out on a PyTorch program.

    ``source`` is what the plan was made on, where that is something else whose names say too little.

    Raises:
        UsageError: it cannot be replayed (see :func:`~graphprune.replay.replay`).
    """
    side = module_side(program)
    return plan if plan.fingerprint == side.fingerprint else replay(plan, side, _source(source, plan))


def plan_for_model(plan: Plan, model: Model, source: Model | TorchProgram | None = None) -> Plan:
    """``plan`` as it is carried out on an ONNX model; see :func:`plan_for_module`."""
    prepare = "" if source is not None and is_torch(source) else plan.prepare
    side = model_side(model, prepare)
    if plan.fingerprint == side.fingerprint or (source is None and _fits(plan, side)):
        return plan
    return replace(replay(plan, side, _source(source, plan)), prepare=prepare)


def _source(source: Model | TorchProgram | None, plan: Plan) -> Side | None:
    if source is None:
        return None
    return module_side(source) if is_torch(source) else model_side(source, plan.prepare)  # type: ignore[arg-type]


def _fits(plan: Plan, side: Side) -> bool:
    """Whether all that is cut is there under its name and of its size."""
    shapes = {name: side.shape(name) or () for name in plan.cuts}
    return all(
        dim < len(shapes[name]) and shapes[name][dim] == cut.size
        for name, dims in plan.cuts.items()
        for dim, cut in dims.items()
    )


def model_side(model: Model, prepare: str = "") -> Side:
    """An ONNX model as it is when a plan is made on it: canonical, and past the pipeline ``prepare``.

    Raises:
        ModelError: it cannot be read.
    """
    work = load(model)
    mark = fingerprint(work)
    context: Any = passes.Context()
    passes.run_passes(work, [passes.Canonicalize(), *(passes.parse_pipeline(prepare) if prepare else ())], context)
    return Side("the ONNX model", read(work), weights_of(work), mark)


def module_side(program: TorchProgram) -> Side:
    """A PyTorch program; without weights where they are on the ``meta`` device."""
    from graphprune.frontends.torch_fingerprint import fingerprint as mark

    absent = any(tensor.is_meta for tensor in program.module.state_dict().values())
    return Side("the module", program.read(), None if absent else program.weights(), mark(program.module))
