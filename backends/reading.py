"""ONNX models in every form that backends take them in, and what an artifact says of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphprune.backends.onnxruntime.sessions import Model

__all__ = ["facts_of", "read_model"]


def read_model(program: Model, name: str) -> ir.Model:
    """A model whose tensors are read when they are needed.

    Raises:
        ModelError: it cannot be read.
    """
    import onnx
    import onnx_ir as ir

    from graphprune.text import first_line

    if isinstance(program, ir.Model):
        return program.clone()
    if isinstance(program, str | os.PathLike) and not os.path.isfile(program):
        raise ModelError(f"{name}: no such file")
    try:
        if isinstance(program, onnx.ModelProto):
            return ir.from_proto(program)
        if isinstance(program, bytes):
            return ir.from_proto(onnx.load_from_string(program))
        return ir.load(program)
    except Exception as error:  # protobuf, I/O and onnx_ir's own errors share no base class
        raise ModelError(f"{name}: not a readable ONNX model ({first_line(error)})") from error


def facts_of(model: ir.Model, name: str) -> dict[str, Any]:
    """The file's name and the fingerprint of a model, for the manifest."""
    from graphprune.frontends.onnx_fingerprint import fingerprint

    return {"name": Path(name).name, "fingerprint": fingerprint(model)}
