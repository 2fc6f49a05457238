"""Sizes of an ONNX model's values as numbers, for typical extents of its symbolic dimensions.

Costs of layers are comparable only where every size is a number, so the inputs of a copy without weights get numbers
and ONNX's shape inference carries them through the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import shape_inference

from graphprune.errors import ModelError
from graphprune.frontends.onnx_slim import slim_proto
from graphprune.sample_inputs import TYPICAL, input_shapes, input_specs

__all__ = ["concrete_sizes"]


def concrete_sizes(model: ir.Model, dims: Mapping[str, int] | None = None) -> dict[str, tuple[int | None, ...]]:
    """Sizes of the values of ``model`` by name, for one sample; a size that depends on data is None.

    ``dims`` sets symbolic dimensions by name (or ``input:position``); of the others the batch is 1, the sides of images
    are 224, everything else is 128 (more where that is too short for the model). No weight is read, and ``model`` is
    not changed.

    Raises:
        UsageError: ``dims`` names a dimension that the model does not have.
    """
    proto = slim_proto(model, stored={})
    best: dict[str, tuple[int | None, ...]] = {}
    fewest = None
    for length in TYPICAL.extents:  # a longer one where windows do not fit into a shorter
        try:
            shapes = input_shapes(input_specs(model), dims, length, TYPICAL)
        except ModelError:  # an input that is no tensor, or of unknown rank: the others still tell something
            shapes = {}
        sizes = _inferred(proto, shapes)
        empty = sum(size is not None and size <= 0 for shape in sizes.values() for size in shape)
        if fewest is None or empty < fewest:  # some models have an empty constant, however long their inputs are
            best, fewest = sizes, empty
        if not empty:
            break
    return best


def _inferred(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int | None, ...]]:
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    try:
        result = shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # whatever inference raises, sizes are a help and no need
        return {}
    return dict(_sizes(result.graph))


def _sizes(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            yield value.name, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _sizes(body)
