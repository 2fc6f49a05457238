"""Where the bytes of an ONNX tensor lie, checked before anything reads them.

Initializers may live in files beside the model (*external data*). Their location, offset and length come
from the model, which may be hostile or stale, so they are checked against the file system here and nowhere else.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphprune.frontends.messages import model_error
from graphprune.frontends.onnx_attributes import held

__all__ = ["CONTRACTIONS", "byte_size", "check_extent", "check_finite", "chunks", "graphs", "locate", "tensors"]

CHUNK_BYTES = 1 << 24

CONTRACTIONS = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul"}
    | {"MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN"}
)
"""Operators whose constant operands are weights in the narrow sense: sums of products run over their axes."""


def byte_size(dtype: ir.DataType, dims: tuple[int, ...] | list[int]) -> int:
    """Return the bytes that a packed tensor takes; exact for any size, sub-byte types rounded up to whole bytes."""
    return (math.prod(dims) * dtype.bitwidth + 7) // 8


def locate(folder: str | os.PathLike[str], location: str, what: str) -> Path:
    """Return the path of an external data file, once it is known to lie inside the model's folder.

    Args:
        folder: the folder of the model file.
        location: the relative path that the tensor gives.
        what: names file and tensor in the message.

    Raises:
        ModelError: the path is empty or absolute, leaves the folder (also by a symbolic link), or is no plain file.
    """
    if not location or "\0" in location:
        raise model_error(what, "its external data names no file", "export the model again")
    remedy = "keep the data file in the model's own folder"
    if os.path.isabs(location) or PureWindowsPath(location).is_absolute():
        raise model_error(what, f"its external data path '{location}' is absolute", remedy)
    base = os.path.realpath(folder)
    path = os.path.join(base, location)
    for resolved in (os.path.normpath(path), os.path.realpath(path)):
        if os.path.commonpath([base, resolved]) != base:
            raise model_error(what, f"its external data path '{location}' leaves the model's folder", remedy)
    try:
        status = os.stat(path)
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise model_error(what, f"its external data file '{location}' {reason}", "put it beside the model") from error
    if not stat.S_ISREG(status.st_mode):
        raise model_error(what, f"its external data '{location}' is not a plain file", remedy)
    if status.st_nlink > 1:
        raise model_error(what, f"its external data file '{location}' has several hard links", "make it a plain copy")
    if not os.access(path, os.R_OK):
        raise model_error(what, f"its external data file '{location}' may not be read", "change its permissions")
    return Path(folder, location)


def check_extent(path: Path, offset: int | None, length: int | None, needed: int, what: str) -> None:
    """Check that `needed` bytes at `offset` exist in `path`, and that a declared `length` agrees.

    Raises:
        ModelError: the data is missing, too short, or of another length than shape and type say.
    """
    start = offset or 0
    if start < 0 or (length is not None and length != needed):
        found = f"offset {start}" if start < 0 else f"{length} bytes declared"
        raise model_error(
            what, f"its shape and type need {needed} bytes of external data, but {found}", "export the model again"
        )
    size = path.stat().st_size
    if start + needed > size:
        raise model_error(
            what,
            f"its external data needs {start + needed} bytes of '{path.name}', which has {size}",
            "the data file is truncated or belongs to another model: fetch it again",
        )


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield every graph that stores tensors: the main graph, the bodies of functions, and all graphs in their nodes."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def tensors(model: ir.Model, *, constants_only: bool = False) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Yield every stored tensor with the name to call it by: initializers, and attributes of nodes.

    With `constants_only`, of all attributes just those that Constant nodes hand on as values.
    """
    for graph in graphs(model):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield f"initializer '{name}'", value.const_value
        for node in graph:
            if constants_only and node.op_type != "Constant":
                continue
            for attribute in node.attributes.values():
                what = f"node '{node.name}' attribute '{attribute.name}'"
                if attribute.is_ref() or attribute.value is None:
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield what, held(attribute)
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from ((what, tensor) for tensor in attribute.as_tensors())


def chunks(tensor: ir.TensorProtocol, size: int = CHUNK_BYTES) -> Iterator[NDArray[np.generic]]:
    """Yield the elements of a tensor as flat arrays of about `size` bytes.

    External data is read piece by piece, without mapping the file, so that memory stays at one piece.
    """
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8:
        dtype = tensor.dtype.numpy().newbyteorder("<")
        left = math.prod(tensor.shape.numpy())
        step = max(1, size // dtype.itemsize)
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset or 0)
            while left > 0:
                piece = np.frombuffer(file.read(min(step, left) * dtype.itemsize), dtype=dtype)
                if piece.size == 0:
                    raise model_error(str(tensor.path), f"it ends inside tensor '{tensor.name}'", "fetch it again")
                left -= piece.size
                yield piece
        return
    flat = tensor.numpy().reshape(-1)
    step = max(1, size // max(1, flat.dtype.itemsize))
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


def check_finite(model: ir.Model) -> None:
    """Check that no stored number is NaN, and no weight infinite; reads each floating-point tensor once, in pieces.

    Infinity is accepted elsewhere: exporters write it into attention masks and clip bounds. In an operand of a sum of
    products it would turn every masked channel into NaN.

    Raises:
        ModelError: names the first such tensor.
    """
    weights = {
        id(value.const_value)
        for graph in graphs(model)
        for value in graph.initializers.values()
        if any(use.node.op_type in CONTRACTIONS for use in value.uses())
    }
    for what, tensor in tensors(model, constants_only=True):
        if not tensor.dtype.is_floating_point() or tensor.dtype.bitwidth < 8:
            continue
        for piece in chunks(tensor):
            if np.isnan(piece).any() or (id(tensor) in weights and np.isinf(piece).any()):
                raise model_error(
                    what, "it contains NaN or infinity, so it has no importance", "repair or retrain the model"
                )
