"""What must hold of an ONNX model before anything is derived from it, checked on the decoded protobuf message.

`onnx.checker` does not do: of a whole model, it refuses what ONNX Runtime runs (nodes out of order, shadowed names),
accepts tensors that disagree with their data, needs the model in one string, and does not say what to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from graphprune.frontends.messages import model_error
from graphprune.frontends.onnx_check_values import (
    ATTRIBUTE_BOUNDS,
    EXPORT,
    MAX_DEPTH,
    MAX_RANK,
    Scope,
    check_tensor,
    check_text,
    check_type,
    contradicts,
    has_shape,
    is_long,
    is_text,
    undecodable,
)
from graphprune.frontends.onnx_data import CONTRACTIONS
from graphprune.frontends.onnx_operators import check_operator

__all__ = ["check_model"]


def check_model(proto: onnx.ModelProto, where: str, folder: Path | None) -> None:
    """Check versions, names, references, order, types, sizes and external files of a model.

    Args:
        proto: the decoded message; not changed.
        where: the file's name, for messages.
        folder: the folder that external data is relative to; None where data files are not to be looked up.

    Raises:
        ModelError: one line that names file, node or tensor, and the remedy.
    """
    opsets = _opsets(proto.opset_import, where)
    functions = frozenset((function.domain, function.name) for function in proto.functions)
    scope = Scope(where, opsets, folder, _context(proto.ir_version, opsets), functions)
    if not proto.HasField("graph"):
        raise scope.fail("it holds no graph, so it is not an ONNX model", "pass the .onnx file of a network")
    if not 0 <= proto.ir_version <= onnx.IR_VERSION:
        raise scope.fail(
            f"its IR version {proto.ir_version} is not one of those up to {onnx.IR_VERSION} that onnx "
            f"{onnx.__version__} reads",
            "upgrade onnx, or export with an older IR version",
        )
    if len(proto.training_info):
        raise scope.fail("it carries training graphs (training_info), which would be lost", "remove them first")
    check_text(scope, "the model's header", proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    check_text(
        scope, "the model's metadata", *(text for entry in proto.metadata_props for text in (entry.key, entry.value))
    )
    if not len(proto.graph.node):
        raise scope.fail("its graph has no nodes, so there is nothing to prune", "pass the .onnx file of a network")
    if not len(proto.graph.output):
        raise scope.fail("its graph has no outputs")
    for value in proto.graph.input:
        if value.type.WhichOneof("value") is None:
            raise scope.fail(f"input '{value.name}' has no type")
    for function in proto.functions:
        name = f"function '{function.domain}::{function.name}'"
        check_text(scope, "a local function", function.name, function.domain, *function.input, *function.output)
        opsets = {**scope.opsets, **_opsets(function.opset_import, where)}
        inner = replace(scope, opsets=opsets, context=_context(proto.ir_version, opsets))
        _check_nodes(inner, name, function.node, function.input, {}, function.output)
    _check_graph(scope, proto.graph, "the graph")


def _context(ir_version: int, opsets: Mapping[str, int]) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = min(max(ir_version, 3), onnx.IR_VERSION)
    context.opset_imports = {domain: min(version, 2**31 - 1) for domain, version in opsets.items()}
    return context


def _opsets(imports: Iterable[onnx.OperatorSetIdProto], where: str) -> dict[str, int]:
    """Return the operator set version of each domain, `ai.onnx` written as the empty string."""
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    opsets: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        shown = f"'{domain}'" if domain else "ai.onnx"
        if undecodable(domain):
            raise model_error(where, f"the domain {shown} is not valid UTF-8, so the file is damaged", EXPORT)
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


def _check_graph(scope: Scope, graph: onnx.GraphProto, name: str) -> set[str]:
    """Check one graph and everything in it; returns the names that it takes from the graphs around it."""
    if scope.depth > MAX_DEPTH:
        raise scope.fail(f"graphs are nested more than {MAX_DEPTH} deep")
    check_text(scope, name, graph.name, *(value.name for value in graph.input), *(value.name for value in graph.output))
    check_text(scope, name, *(value.name for value in graph.value_info))
    if len(graph.sparse_initializer):
        raise scope.fail(f"{name} has sparse initializers, which are not supported", "store them dense")
    long = set()
    for value in (*graph.input, *graph.output, *graph.value_info):
        check_type(scope, f"value '{value.name}'", value.type)
        if is_long(value.type):
            long.add(value.name)
    initializers = {}
    for tensor in graph.initializer:
        check_tensor(scope, f"initializer '{tensor.name}'", tensor)
        initializers[tensor.name] = 0 in tensor.dims
        if len(tensor.dims) == 1 and tensor.dims[0] > MAX_RANK:
            long.add(tensor.name)
    declared = {value.name: value.type.tensor_type.shape for value in graph.input if has_shape(value.type)}
    for tensor in graph.initializer:
        if tensor.name in declared and contradicts(declared[tensor.name], tensor):
            raise scope.fail(f"initializer '{tensor.name}' of shape {list(tensor.dims)} is declared with another")
    inputs = [value.name for value in graph.input]
    if "" in initializers or "" in inputs or len(set(inputs)) != len(inputs):
        raise scope.fail(f"{name} has inputs or initializers that have no name, or the same name twice")
    scope = replace(scope, long=scope.long | long)
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
        check_text(scope, f"node {index}", node.name, node.op_type, node.domain, *node.input, *node.output)
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
        check_operator(scope, label, node)
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
    check_text(scope, what, attribute.name, attribute.ref_attr_name)
    if attribute.ref_attr_name:
        return set()
    if kind == onnx.AttributeProto.STRING and not custom and not is_text(attribute.s):
        raise scope.fail(f"{what} is not valid UTF-8, so the file is damaged", "fetch or export it again")
    if kind == onnx.AttributeProto.INT and attribute.name in ATTRIBUTE_BOUNDS:
        low, high = ATTRIBUTE_BOUNDS[attribute.name]
        if not low <= attribute.i <= high:
            raise scope.fail(f"{what} is {attribute.i}, which no tensor allows")
    if kind == onnx.AttributeProto.UNDEFINED:
        raise scope.fail(f"{what} has no type")
    if kind in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
        raise scope.fail(f"{what} is a sparse tensor, which is not supported", "store it dense")
    if kind == onnx.AttributeProto.TENSOR:
        check_tensor(scope, what, attribute.t)
    for tensor in attribute.tensors if kind == onnx.AttributeProto.TENSORS else ():
        check_tensor(scope, what, tensor)
    used: set[str] = set()
    if kind == onnx.AttributeProto.GRAPH:
        used |= _check_graph(scope, attribute.g, what)
    for graph in attribute.graphs if kind == onnx.AttributeProto.GRAPHS else ():
        used |= _check_graph(scope, graph, what)
    return used
