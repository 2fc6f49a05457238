"""Random inputs for any model: floats are normal, integers are small indices."""

from __future__ import annotations

import numpy as np
import onnx

from graphprune.models.reference.builder import Array

__all__ = ["random_inputs"]

SIZES = {"batch": 2, "length": 6, "height": 16, "width": 16}


def random_inputs(model: onnx.ModelProto, seed: int = 0, *, high: int = 11) -> dict[str, Array]:
    """Return one array for each graph input; symbolic sizes are filled in, the same name with the same size."""
    rng = np.random.default_rng(seed)
    held = {tensor.name for tensor in model.graph.initializer}
    arrays: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name in held:
            continue
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        dims = value.type.tensor_type.shape.dim
        shape = [dim.dim_value if dim.HasField("dim_value") else SIZES.get(dim.dim_param, 2) for dim in dims]
        if np.issubdtype(kind, np.integer):
            arrays[value.name] = rng.integers(0, high, shape).astype(kind)
        elif kind == np.bool_:
            arrays[value.name] = rng.random(shape) < 0.5
        else:
            arrays[value.name] = rng.standard_normal(shape).astype(kind)
    return arrays
