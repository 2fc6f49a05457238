"""A machine that is made up: its operators and models take seconds that follow from their shapes alone.

Channels count in vectors of eight, calling the runtime takes a microsecond, and a whole model takes four fifths of what
its operators take one by one, with a part that no cut changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.backends.latency.operators import Single
from graphprune.backends.latency.stopwatch import LatencyStopwatch
from graphprune.backends.onnxruntime.sessions import session

__all__ = ["CALL", "VECTOR", "Machine", "images", "model_seconds", "stopwatch"]

CALL = 1e-6
VECTOR = 8
FUSED, FIXED = 0.8, 2e-6


def images(text: str, **weights: np.ndarray) -> ir.Model:
    """A model of 8x8 images, in ONNX's text form, with shapes inferred."""
    header = '<ir_version: 8, opset_import: ["" : 17]>\n'
    proto = onnx.parser.parse_model(header + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _vectors(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR


def _node_seconds(node: onnx.NodeProto, stored: dict[str, tuple[int, ...]], spatial: int = 64) -> float:
    weight = next((stored[name] for name in node.input[1:2] if name in stored), ())
    if node.op_type == "Conv":
        return 1e-9 * _vectors(weight[0]) * _vectors(weight[1]) * math.prod(weight[2:]) * spatial
    if node.op_type in ("Gemm", "MatMul") and weight:
        return 1e-9 * math.prod(map(_vectors, weight))
    return 0.0


def model_seconds(proto: onnx.ModelProto) -> float:
    """What the operators of a model take one by one."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    return sum(_node_seconds(node, stored) for node in proto.graph.node)


@dataclass
class Machine:
    """Counts what it is asked to measure."""

    operators: int = 0
    models: int = 0

    def timer(self, single: Single) -> float | None:
        """The seconds of one operator; it must run, too."""
        self.operators += 1
        session(single.model, threads=1).run(None, single.feeds)
        return CALL + model_seconds(single.model)

    def race(self, models: Sequence[ir.Model]) -> list[float]:
        """The seconds of whole models."""
        self.models += len(models)
        return [FIXED + FUSED * model_seconds(ir.to_proto(model)) for model in models]


def stopwatch(machine: Machine, cache: Path, seconds: float = 1e9) -> LatencyStopwatch:
    """A stopwatch of that machine."""
    return LatencyStopwatch(threads=1, seconds=seconds, cache=cache, timer=machine.timer, races=machine.race)
