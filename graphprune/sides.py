"""Programs of either host as sides of a replay (see :mod:`graphprune.replay`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from graphprune import passes
from graphprune.correspondence import Side
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_fingerprint import fingerprint
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_weights import weights_of

if TYPE_CHECKING:
    from graphprune.frontends.torch_program import TorchProgram

__all__ = ["model_side", "module_side"]


def model_side(model: str | os.PathLike[str] | ir.Model | onnx.ModelProto, prepare: str = "") -> Side:
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
