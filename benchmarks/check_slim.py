"""Compare a slim ONNX file with its original, without any of graphprune's analysis.

``python benchmarks/check_slim.py ORIGINAL SLIM`` prints one JSON object: does the slim model load and run in ONNX
Runtime, do its outputs have the original's shapes, do they differ (and do the original's depend on its inputs at all),
how many weights has each file.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from graphprune.sample_inputs import Inputs, input_specs, inputs_that_run

__all__ = ["check_slim", "weight_elements"]

NO_WEIGHTS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and the bodies inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])]:
                yield from graphs(body)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the initializers of ``graph``, and the constants that stand in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def weight_elements(path: Path) -> int:
    """Return the number of elements of all stored tensors but shapes, indices and conditions; weights are not read."""
    model = onnx.load_model(path, load_external_data=False)
    stored = (tensor for graph in graphs(model.graph) for tensor in tensors(graph))
    return sum(math.prod(tensor.dims) for tensor in stored if tensor.data_type not in NO_WEIGHTS)


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open ``path`` in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_slim(original: Path, slim: Path) -> dict[str, Any]:
    """Return what the comparison found; ``problem`` is None where all is well."""
    found: dict[str, Any] = {"elements_before": weight_elements(original), "problem": None}
    reference = session(original)
    results: list[Any] = []

    def run(inputs: Inputs) -> None:
        results[:] = reference.run(None, inputs)

    inputs = inputs_that_run(run, input_specs(reference))
    try:
        found["elements_after"] = weight_elements(slim)
        outputs = session(slim).run(None, inputs)
    except Exception as error:  # whatever the runtime raises: the slim model is broken
        found["problem"] = f"does not run: {str(error).splitlines()[0]}"
        return found
    shapes = [(np.shape(a), np.shape(b)) for a, b in zip(results, outputs, strict=True)]
    wrong = [f"{a} became {b}" for a, b in shapes if a != b]
    finite = all(np.isfinite(b).all() for a, b in zip(results, outputs, strict=True) if _finite(a))
    if wrong:
        found["problem"] = f"output shape {wrong[0]}"
    elif not finite:
        found["problem"] = "an output is no longer finite"
    found["differs"] = differ(results, outputs)
    found["sensitive"] = differ(results, reference.run(None, {name: changed(array) for name, array in inputs.items()}))
    return found


def changed(array: Any) -> Any:
    """Return other values of the same type and shape that are as fit to be inputs."""
    floating = np.issubdtype(array.dtype, np.floating)
    return np.asarray(1.5 * array + 0.5 if floating else np.flip(array), array.dtype).copy()


def differ(some: list[Any], others: list[Any]) -> bool:
    """Return whether any output differs in any bit."""
    return any(not np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def _finite(array: Any) -> bool:
    return np.issubdtype(np.asarray(array).dtype, np.floating) and bool(np.isfinite(array).all())


if __name__ == "__main__":
    print(json.dumps(check_slim(Path(sys.argv[1]), Path(sys.argv[2]))))
