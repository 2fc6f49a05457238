"""Plants filters that make no difference into a model: dead, constant, or copies of others."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["KINDS", "plant"]

KINDS = ("dead", "constant", "duplicate", "unread")
ROWS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 0}
COLUMNS = {"Conv": 1, "ConvTranspose": 0, "MatMul": 0, "Gemm": 1}


class Planter:
    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        self.model = model
        self.choice = random.Random(seed)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.readers = {name: node for node in model.graph.node for name in node.input}

    def edit(self, name: str, dim: int, position: int, source: int | float) -> None:
        """Copy position ``source`` to ``position``, or fill it with the number ``source``."""
        tensor = self.tensors.get(name)
        if tensor is None or self.uses[name] != 1:
            return
        array = numpy_helper.to_array(tensor).copy()
        if array.ndim <= dim or array.shape[dim] <= position:
            return
        lines = np.moveaxis(array, dim, 0)
        lines[position] = lines[source] if isinstance(source, int) else source
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    def layer(self, node: onnx.NodeProto, kind: str, share: float) -> int:
        """Plant into about ``share`` of one layer's filters; returns how many."""
        rows, columns = ROWS[node.op_type], COLUMNS[node.op_type]
        if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
            rows, columns = 1, 0
        weight = self.tensors.get(node.input[1])
        if weight is None or len(weight.dims) < 2 or self.uses[weight.name] != 1:
            return 0
        dim = columns if kind == "unread" else rows
        size = weight.dims[dim]
        chosen = self.choice.sample(range(1, size), int(share * (size - 1))) if size > 1 else []
        after = self.readers.get(node.output[0])
        norm = after if after is not None and after.op_type == "BatchNormalization" else None
        for position in chosen:
            if kind == "unread":
                self.edit(weight.name, columns, position, 0.0)
                continue
            source: int | float = 0 if kind == "duplicate" else 0.0
            self.edit(weight.name, rows, position, source)
            level = source if kind != "constant" else self.choice.choice([-0.5, 0.25, 1.0])
            for name in node.input[2:3]:
                self.edit(name, 0, position, level)
            if norm is not None:
                for name, value in zip(norm.input[1:], (source, level, source, source), strict=True):
                    self.edit(name, 0, position, value if isinstance(value, int) or name != norm.input[4] else 1.0)
        return len(chosen)


def plant(
    model: onnx.ModelProto, kind: str, seed: int, share: float = 0.4, layers: float = 0.6
) -> tuple[onnx.ModelProto, int]:
    """A copy of ``model`` with ``share`` of the filters of about ``layers`` of its layers changed, and their number."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    planter = Planter(result, seed)
    chosen = [node for node in result.graph.node if node.op_type in ROWS and planter.choice.random() < layers]
    return result, sum(planter.layer(node, kind, share) for node in chosen)
