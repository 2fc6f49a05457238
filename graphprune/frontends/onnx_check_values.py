"""What must hold of one tensor, type or name in an ONNX model, checked on the decoded protobuf message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.messages import model_error
from graphprune.frontends.onnx_data import byte_size, check_extent, locate

__all__ = [
    "ATTRIBUTE_BOUNDS",
    "EXPORT",
    "MAX_DEPTH",
    "Scope",
    "check_tensor",
    "check_text",
    "check_type",
    "is_text",
    "undecodable",
]

MAX_ELEMENTS = 1 << 48
MAX_RANK = 64
MAX_DEPTH = 16
MAX_LIST = 1 << 24
ATTRIBUTE_BOUNDS = {"axis": (-MAX_RANK, MAX_RANK), "batch_dims": (0, MAX_RANK), "num_outputs": (1, 1 << 16)}
"""Attributes whose values onnx's shape inference indexes with unchecked: beyond these it crashes or does not end."""

EXPORT = "export the model again"

TYPED_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.COMPLEX64: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
    onnx.TensorProto.STRING: "string_data",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a graph may refer to.

    `where` names the model, `folder` holds its data, `context` and `functions` decide which signature an operator has,
    `outer` are the values of the graphs around, `empty` those of them that are initializers without elements, `long`
    those that list more numbers than a shape can have, and `depth` is how many graphs are around.
    """

    where: str
    opsets: Mapping[str, int]
    folder: Path | None
    context: onnx.checker.C.CheckerContext
    functions: frozenset[tuple[str, str]] = frozenset()
    outer: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    long: frozenset[str] = frozenset()
    depth: int = 0

    def fail(self, what: str, remedy: str = EXPORT) -> ModelError:
        """Return the error that says `what` is wrong in this model and what to do."""
        return model_error(self.where, what, remedy)


def is_text(content: bytes) -> bool:
    """Return whether bytes are valid UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def undecodable(*texts: object) -> bool:
    """Return whether any string is not valid UTF-8: the decoder hands out bytes in place of such a string."""
    return any(isinstance(text, bytes) for text in texts)


def check_text(scope: Scope, what: str, *texts: object) -> None:
    """Check that strings are text."""
    if undecodable(*texts):
        raise scope.fail(
            f"{what} holds a name that is not valid UTF-8, so the file is damaged", "fetch or export it again"
        )


def check_type(scope: Scope, what: str, proto: onnx.TypeProto, depth: int = 0) -> None:
    """Check that a type is one that the model's values can have."""
    if depth > MAX_DEPTH:
        raise scope.fail(f"{what} has a type nested more than {MAX_DEPTH} deep")
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        elements = proto.tensor_type.elem_type
        if elements == onnx.TensorProto.UNDEFINED or elements not in ir.DataType._value2member_map_:
            raise scope.fail(f"{what} has the undefined element type {elements}")
        sizes = [dim.dim_value for dim in proto.tensor_type.shape.dim if dim.HasField("dim_value")]
        check_text(scope, what, *(dim.dim_param for dim in proto.tensor_type.shape.dim))
        if math.prod(size for size in sizes if size > 0) > MAX_ELEMENTS or len(sizes) > MAX_RANK:
            raise scope.fail(f"{what} has the impossible shape {sizes}")
        if len(proto.tensor_type.shape.dim) == 1 and max(sizes, default=0) > MAX_LIST:
            raise scope.fail(f"{what} lists {sizes[0]} numbers, too many to follow", "make its dimension symbolic")
    elif kind == "map_type":
        raise scope.fail(f"{what} is a map, which is not supported", "remove the post-processing that makes it")
    elif kind in ("sequence_type", "optional_type"):
        check_type(scope, what, getattr(proto, kind).elem_type, depth + 1)


def has_shape(proto: onnx.TypeProto) -> bool:
    """Return whether a type says how many axes a tensor has."""
    return proto.HasField("tensor_type") and proto.tensor_type.HasField("shape")


def contradicts(shape: onnx.TensorShapeProto, tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor cannot have a shape; sizes below 1 are how some exporters write unknown ones."""
    if len(shape.dim) != len(tensor.dims):
        return True
    return any(dim.dim_value > 0 and dim.dim_value != size for dim, size in zip(shape.dim, tensor.dims, strict=True))


def is_long(proto: onnx.TypeProto) -> bool:
    """Return whether a type is a list of more numbers than a tensor has axes."""
    dims = proto.tensor_type.shape.dim
    return len(dims) == 1 and dims[0].dim_value > MAX_RANK


def check_tensor(scope: Scope, what: str, tensor: onnx.TensorProto) -> None:
    """Check that type, dimensions and data of a tensor agree, without decoding the data."""
    dims = list(tensor.dims)
    check_text(scope, what, tensor.name, tensor.doc_string)
    if tensor.data_type == onnx.TensorProto.UNDEFINED or tensor.data_type not in ir.DataType._value2member_map_:
        raise scope.fail(f"{what} has the undefined data type {tensor.data_type}")
    if any(dim < 0 for dim in dims):
        raise scope.fail(f"{what} has a negative dimension in {dims}")
    if len(dims) > MAX_RANK or math.prod(dim for dim in dims if dim) > MAX_ELEMENTS:
        raise scope.fail(f"{what} has the impossible shape {dims}")
    if tensor.HasField("segment"):
        raise scope.fail(f"{what} is stored in segments, which is not supported", "store it whole")
    dtype, elements = ir.DataType(tensor.data_type), math.prod(dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(scope, what, tensor, dtype, dims)
        return
    if tensor.HasField("raw_data") and dtype != ir.DataType.STRING:
        found, needed, unit = len(tensor.raw_data), byte_size(dtype, dims), "bytes"
    else:
        found, unit = len(getattr(tensor, TYPED_FIELDS.get(tensor.data_type, "int32_data"))), "values"
        alone = dtype.name in ("STRING", "FLOAT6E2M3", "FLOAT6E3M2") or dtype.bitwidth >= 8
        needed = elements if alone else byte_size(dtype, dims)
        if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
            needed *= 2
    if found != needed:
        raise scope.fail(f"{what} of shape {dims} and type {dtype.name} needs {needed} {unit} but has {found}")


def _check_external(scope: Scope, what: str, tensor: onnx.TensorProto, dtype: ir.DataType, dims: list[int]) -> None:
    if dtype == ir.DataType.STRING:
        raise scope.fail(f"{what} holds strings as external data, which ONNX forbids")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    check_text(scope, what, *entries, *entries.values())
    try:
        offset = int(entries["offset"]) if "offset" in entries else None
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as error:
        raise scope.fail(f"{what} has an external data offset or length that is no number") from error
    if scope.folder is None:
        return
    named = f"{scope.where}: {what}"
    path = locate(scope.folder, entries.get("location", ""), named)
    check_extent(path, offset, length, byte_size(dtype, dims), named)
