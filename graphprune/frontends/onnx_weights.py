"""Reads weights of an ONNX model block by block, so that memory stays at one block whatever the model's size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.score.base import Block, Weights, block_bounds, blocks

__all__ = ["weights_of"]


def weights_of(model: ir.Model) -> Weights:
    """A reader of the initializers of ``model``, those of bodies included.

    Values come in the type that they are stored in (fp16, bf16, float8 and 4-bit types as numpy sees them).
    """
    stored = {
        name: value.const_value
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }

    def read(name: str) -> Iterator[Block]:
        tensor = stored[name]
        if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.bitwidth < 8:
            yield from blocks(tensor.numpy())
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()
            return
        yield from _streamed(tensor)

    return read


def _streamed(tensor: ir.ExternalTensor) -> Iterator[Block]:
    shape = tuple(int(size) for size in tensor.shape)  # type: ignore[arg-type]
    dtype = tensor.dtype.numpy().newbyteorder("<")
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset or 0)
        for prefix, start, stop in block_bounds(shape):
            inner = shape[len(prefix) + 1 :]
            count = (stop - start) * math.prod(inner)
            data = file.read(count * dtype.itemsize)
            if len(data) != count * dtype.itemsize:
                raise ModelError(f"'{tensor.path}' ends inside tensor '{tensor.name}'; the data file is truncated")
            yield Block(prefix, start, np.frombuffer(data, dtype).reshape(stop - start, *inner))
