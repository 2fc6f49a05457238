"""What must hold of an ONNX model before anything is derived from it, checked on the decoded protobuf message.

`onnx.checker` is not used: it refuses models that ONNX Runtime runs (nodes out of order, shadowed names), accepts
others whose tensors disagree with their data, needs the whole model in one string, and does not say what to do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.messages import model_error
from graphprune.frontends.onnx_data import CONTRACTIONS, byte_size, check_extent, locate

__all__ = ["check_model"]

MAX_ELEMENTS = 1 << 48
MAX_RANK = 64
MAX_DEPTH = 16
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

    `where` names the model, `folder` holds its data, `outer` are the values of the graphs around, `empty` those of them
    that are initializers without elements, `depth` is how many graphs are around.
    """

    where: str
    opsets: Mapping[str, int]
    folder: Path | None
    outer: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    depth: int = 0

    def fail(self, what: str, remedy: str = EXPORT) -> ModelError:
        """Return the error that says `what` is wrong in this model and what to do."""
        return model_error(self.where, what, remedy)


def check_model(proto: onnx.ModelProto, where: str, folder: Path | None) -> None:
    """Check versions, names, references, order, types, sizes and external files of a model.

    Args:
        proto: the decoded message; not changed.
        where: the file's name, for messages.
        folder: the folder that external data is relative to; None where data files are not to be looked up.

    Raises:
        ModelError: one line that names file, node or tensor, and the remedy.
    """
    scope = Scope(where, _opsets(proto.opset_import, where), folder)
    if not proto.HasField("graph"):
        raise scope.fail("it holds no graph, so it is not an ONNX model", "pass the .onnx file of a network")
    if proto.ir_version < 1:
        raise scope.fail("it declares no IR version, so it is not an ONNX model or was cut off")
    if proto.ir_version > onnx.IR_VERSION:
        raise scope.fail(
            f"its IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the newest that onnx "
            f"{onnx.__version__} reads",
            "upgrade onnx, or export with an older IR version",
        )
    if len(proto.training_info):
        raise scope.fail("it carries training graphs (training_info), which would be lost", "remove them first")
    _text(scope, "the model's header", proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    _text(scope, "the model's metadata", *(text for entry in proto.metadata_props for text in (entry.key, entry.value)))
    if not len(proto.graph.node):
        raise scope.fail("its graph has no nodes, so there is nothing to prune", "pass the .onnx file of a network")
    if not len(proto.graph.output):
        raise scope.fail("its graph has no outputs")
    for function in proto.functions:
        name = f"function '{function.domain}::{function.name}'"
        _text(scope, "a local function", function.name, function.domain, *function.input, *function.output)
        opsets = {**scope.opsets, **_opsets(function.opset_import, where)}
        _check_nodes(Scope(where, opsets, folder), name, function.node, function.input, {}, function.output)
    _check_graph(scope, proto.graph, "the graph")


def _opsets(imports: Iterable[onnx.OperatorSetIdProto], where: str) -> dict[str, int]:
    """Return the operator set version of each domain, `ai.onnx` written as the empty string."""
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    opsets: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        shown = f"'{domain}'" if domain else "ai.onnx"
        if entry.version < 1 or opsets.setdefault(domain, entry.version) != entry.version:
            raise model_error(where, f"its operator set version for {shown} is contradictory or below 1", EXPORT)
        if entry.version > newest.get(domain, entry.version):
            raise model_error(
                where,
                f"operator set {entry.version} of {shown} is newer than {newest[domain]}, the newest that onnx "
                f"{onnx.__version__} knows",
                "upgrade onnx, or export with an older operator set",
            )
    return opsets


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text(scope: Scope, what: str, *texts: object) -> None:
    """Check that strings are text: the decoder hands out bytes where a string is not valid UTF-8."""
    if any(isinstance(text, bytes) for text in texts):
        raise scope.fail(
            f"{what} holds a name that is not valid UTF-8, so the file is damaged", "fetch or export it again"
        )


def _check_graph(scope: Scope, graph: onnx.GraphProto, name: str) -> set[str]:
    """Check one graph and everything in it; returns the names that it takes from the graphs around it."""
    if scope.depth > MAX_DEPTH:
        raise scope.fail(f"graphs are nested more than {MAX_DEPTH} deep")
    _text(scope, name, graph.name, *(value.name for value in graph.input), *(value.name for value in graph.output))
    _text(scope, name, *(value.name for value in graph.value_info))
    if len(graph.sparse_initializer):
        raise scope.fail(f"{name} has sparse initializers, which are not supported", "store them dense")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_type(scope, f"value '{value.name}'", value.type)
    initializers = {}
    for tensor in graph.initializer:
        _check_tensor(scope, f"initializer '{tensor.name}'", tensor)
        initializers[tensor.name] = 0 in tensor.dims
    inputs = [value.name for value in graph.input]
    if "" in initializers or "" in inputs or len(set(inputs)) != len(inputs):
        raise scope.fail(f"{name} has inputs or initializers that have no name, or the same name twice")
    return _check_nodes(scope, name, graph.node, inputs, initializers, [value.name for value in graph.output])


def _check_nodes(
    scope: Scope,
    name: str,
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[str],
    initializers: Mapping[str, bool],
    outputs: Iterable[str],
) -> set[str]:
    """Check that every name is defined once and, in some order, before it is used; returns names from outside.

    `initializers` says of each whether it has no elements.
    """
    nodes = list(nodes)
    producer: dict[str, int | None] = dict.fromkeys((*inputs, *initializers))
    for index, node in enumerate(nodes):
        _text(scope, f"node {index}", node.name, node.op_type, node.domain, *node.input, *node.output)
        for output in node.output:
            if output and output in producer:
                raise scope.fail(f"value '{output}' is defined twice, again by {_label(node, index)}")
            if output:
                producer[output] = index
    known = scope.outer | producer.keys()
    empty = (scope.empty - producer.keys()) | {name for name, flag in initializers.items() if flag}
    inner = replace(scope, outer=known, empty=empty, depth=scope.depth + 1)
    reads: list[set[str]] = []
    for index, node in enumerate(nodes):
        label = _label(node, index)
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not node.op_type:
            raise scope.fail(f"{label} has no operator type")
        if domain not in scope.opsets:
            raise scope.fail(f"{label} is of domain '{domain or 'ai.onnx'}', for which no operator set is imported")
        used = {value for value in node.input if value}
        for value in sorted(used - known):
            raise scope.fail(f"{label} reads '{value}', which no input, initializer or node defines")
        if node.op_type in CONTRACTIONS and used & empty:
            raise scope.fail(f"{label} has the weight '{min(used & empty)}' with an axis of size 0")
        for attribute in node.attribute:
            used |= _check_attribute(inner, f"{label} attribute '{attribute.name}'", attribute, custom=bool(domain))
        reads.append(used)
    returned = list(outputs)
    for output in returned:
        if output not in producer:
            raise scope.fail(f"{name} returns '{output}', which nothing in it defines")
    if len(set(returned)) != len(returned):
        raise scope.fail(f"{name} returns the same value twice", "give each output its own Identity node")
    _check_acyclic(scope, nodes, reads, producer)
    return set().union(*reads) - producer.keys()


def _label(node: onnx.NodeProto, index: int) -> str:
    return f"node '{node.name}' ({node.op_type})" if node.name else f"node {index} ({node.op_type})"


def _check_acyclic(
    scope: Scope, nodes: list[onnx.NodeProto], reads: list[set[str]], producer: Mapping[str, int | None]
) -> None:
    before = [{index for name in used if (index := producer.get(name)) is not None} for used in reads]
    if all(not earlier or max(earlier) < index for index, earlier in enumerate(before)):
        return
    after: list[list[int]] = [[] for _ in nodes]
    waiting = [len(earlier) for earlier in before]
    for index, earlier in enumerate(before):
        for other in earlier:
            after[other].append(index)
    ready = deque(index for index, count in enumerate(waiting) if not count)
    while ready:
        for index in after[ready.popleft()]:
            waiting[index] -= 1
            if not waiting[index]:
                ready.append(index)
    for index, count in enumerate(waiting):
        if count:
            raise scope.fail(f"{_label(nodes[index], index)} waits for its own result: the graph has a cycle")


def _check_attribute(scope: Scope, what: str, attribute: onnx.AttributeProto, *, custom: bool) -> set[str]:
    """Check an attribute; returns the outer names that its graphs read. Custom operators may store bytes as strings."""
    kind = attribute.type
    _text(scope, what, attribute.name, attribute.ref_attr_name)
    if attribute.ref_attr_name:
        return set()
    if kind == onnx.AttributeProto.STRING and not custom and not _is_text(attribute.s):
        raise scope.fail(f"{what} is not valid UTF-8, so the file is damaged", "fetch or export it again")
    if kind == onnx.AttributeProto.UNDEFINED:
        raise scope.fail(f"{what} has no type")
    if kind in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
        raise scope.fail(f"{what} is a sparse tensor, which is not supported", "store it dense")
    if kind == onnx.AttributeProto.TENSOR:
        _check_tensor(scope, what, attribute.t)
    for tensor in attribute.tensors if kind == onnx.AttributeProto.TENSORS else ():
        _check_tensor(scope, what, tensor)
    used: set[str] = set()
    if kind == onnx.AttributeProto.GRAPH:
        used |= _check_graph(scope, attribute.g, what)
    for graph in attribute.graphs if kind == onnx.AttributeProto.GRAPHS else ():
        used |= _check_graph(scope, graph, what)
    return used


def _check_type(scope: Scope, what: str, proto: onnx.TypeProto, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise scope.fail(f"{what} has a type nested more than {MAX_DEPTH} deep")
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        if proto.tensor_type.elem_type not in ir.DataType._value2member_map_:
            raise scope.fail(f"{what} has the unknown element type {proto.tensor_type.elem_type}")
        sizes = [dim.dim_value for dim in proto.tensor_type.shape.dim if dim.HasField("dim_value")]
        _text(scope, what, *(dim.dim_param for dim in proto.tensor_type.shape.dim))
        if math.prod(size for size in sizes if size > 0) > MAX_ELEMENTS or len(sizes) > MAX_RANK:
            raise scope.fail(f"{what} has the impossible shape {sizes}")
    elif kind == "map_type":
        raise scope.fail(f"{what} is a map, which is not supported", "remove the post-processing that makes it")
    elif kind in ("sequence_type", "optional_type"):
        _check_type(scope, what, getattr(proto, kind).elem_type, depth + 1)


def _check_tensor(scope: Scope, what: str, tensor: onnx.TensorProto) -> None:
    """Check that type, dimensions and data of a tensor agree, without decoding the data."""
    dims = list(tensor.dims)
    _text(scope, what, tensor.name, tensor.doc_string)
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
        packed = elements if dtype.name in ("STRING", "FLOAT6E2M3", "FLOAT6E3M2") or dtype.bitwidth >= 8 else 0
        needed = packed or byte_size(dtype, dims)
        if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
            needed *= 2
    if found != needed:
        raise scope.fail(f"{what} of shape {dims} and type {dtype.name} needs {needed} {unit} but has {found}")


def _check_external(scope: Scope, what: str, tensor: onnx.TensorProto, dtype: ir.DataType, dims: list[int]) -> None:
    if dtype == ir.DataType.STRING:
        raise scope.fail(f"{what} holds strings as external data, which ONNX forbids")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    _text(scope, what, *entries, *entries.values())
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
