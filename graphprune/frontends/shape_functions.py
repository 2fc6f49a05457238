"""Shape functions in Python that ONNX's inference calls for the operators in our private domain."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import shape_inference

from graphprune.frontends.shape_notation import Dim, Signature
from graphprune.frontends.slice_shape import sliced_dims

__all__ = ["ELEMENTS", "infer_matmul", "infer_row", "infer_slice"]

ELEMENTS = {"float": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
"""The element types that a table spells by name."""


def infer_row(signature: Signature) -> Callable[[shape_inference.InferenceContext], None]:
    """Return the ONNX inference callback of one row of ``SHAPES``."""

    def infer(context: shape_inference.InferenceContext) -> None:
        shapes: dict[str, list[Dim]] = {}
        elements: dict[str, int] = {}
        for position, name in enumerate(signature.operands):
            if position >= context.get_num_inputs():
                break
            if not context.has_input(position):
                continue
            found: onnx.TypeProto | None = context.get_input_type(position)
            if found is None or not found.HasField("tensor_type"):
                continue
            elements[name] = found.tensor_type.elem_type
            if found.tensor_type.HasField("shape"):
                shapes[name] = [_dim(dim) for dim in found.tensor_type.shape.dim]

        def attribute(name: str) -> int | list[int] | None:
            found: onnx.AttributeProto | None = context.get_attribute(name)
            if found is None:
                return None
            return list(found.ints) if found.type == onnx.AttributeProto.INTS else int(found.i)

        for position, output in enumerate(signature.outputs[: context.get_num_outputs()]):
            dims = signature.shape(output, shapes, attribute)
            element = elements.get(output.element or signature.operands[0])
            if element is None:
                element = ELEMENTS.get(output.element)
            if element is not None:
                context.set_output_type(position, onnx.helper.make_tensor_type_proto(element, dims))

    return infer


def infer_matmul(context: shape_inference.InferenceContext) -> None:
    """Infer a FusedMatMul, whose operands may come transposed, with their first dimension in front of the batch's."""
    operands: list[list[Dim]] = []
    for position, side in enumerate("AB"):
        found: onnx.TypeProto | None = context.get_input_type(position)
        if found is None or not found.tensor_type.HasField("shape"):
            return
        dims = [_dim(dim) for dim in found.tensor_type.shape.dim]
        if _flag(context, f"transBatch{side}"):
            dims = [*dims[1:-1], dims[0], dims[-1]]
        operands.append([*dims[:-2], dims[-1], dims[-2]] if _flag(context, f"trans{side}") else dims)
    left, right = operands
    if len(left) < 2 or len(right) < 2:
        return
    rank = max(len(left), len(right)) - 2
    one: list[Dim] = [1]
    batches = (one * (rank + 2 - len(dims)) + dims[:-2] for dims in operands)
    batch = [b if a == 1 else a if b == 1 or a == b or isinstance(a, int) else b for a, b in zip(*batches, strict=True)]
    element = context.get_input_type(0).tensor_type.elem_type
    context.set_output_type(0, onnx.helper.make_tensor_type_proto(element, [*batch, left[-2], right[-1]]))


def infer_slice(context: shape_inference.InferenceContext) -> None:
    """Infer a Slice from constant operands; without them only the rank is known."""
    found: onnx.TypeProto | None = context.get_input_type(0)
    if found is None or not found.tensor_type.HasField("shape"):
        return
    dims = [_dim(dim) for dim in found.tensor_type.shape.dim]
    starts, ends, axes, steps = (_integers(context, position) for position in range(1, 5))
    if not context.has_input(4):
        steps = None if starts is None else [1] * len(starts)
    result = None
    if starts is not None and ends is not None and steps is not None and (axes or not context.has_input(3)):
        result = sliced_dims(dims, starts, ends, axes, steps)
    result = [None] * len(dims) if result is None else result
    context.set_output_type(0, onnx.helper.make_tensor_type_proto(found.tensor_type.elem_type, result))


def _integers(context: shape_inference.InferenceContext, position: int) -> list[int] | None:
    if not context.has_input(position):
        return None
    data: onnx.TensorProto | None = context.get_input_data(position)
    return None if data is None else [int(number) for number in onnx.numpy_helper.to_array(data).reshape(-1)]


def _flag(context: shape_inference.InferenceContext, name: str) -> bool:
    attribute: onnx.AttributeProto | None = context.get_attribute(name)
    return attribute is not None and bool(attribute.i)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    return dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
