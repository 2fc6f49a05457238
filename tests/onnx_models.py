"""ONNX models for tests: written as text, run in ONNX Runtime, and found in the corpus."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
"""Networks whose weights come out of ConstantOfShape nodes."""


def corpus() -> list[Path]:
    """Return the ONNX files of the corpus; none where GRAPHPRUNE_CORPUS is not set."""
    folder = os.environ.get("GRAPHPRUNE_CORPUS")
    return sorted(Path(folder, "onnx").glob("*.onnx")) if folder else []


def parse(text: str, opset: int = 17, **weights: np.ndarray) -> ir.Model:
    """Return the model of a graph in ONNX's text form, with ``weights`` as further initializers."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1, "local" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return ir.from_proto(proto)


def session(model: ir.Model | onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """Return a session that runs the graph as it stands, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: ir.Model | onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return what the graph computes."""
    return session(model).run(None, dict(feeds))


def operators(model: ir.Model) -> list[str]:
    """Return the operators of the model in reading order, subgraphs included."""
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


def fingerprint(model: ir.Model) -> bytes:
    """Return all bytes of the model."""
    return ir.to_proto(model).SerializeToString(deterministic=True)
