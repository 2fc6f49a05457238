"""Programs as TVM's Relax modules: ONNX models and what PyTorch exports, with errors that name the operator."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from graphprune.backends.base import TensorSpec
from graphprune.backends.onnxruntime.sessions import save_optimized, session
from graphprune.backends.quiet import quiet
from graphprune.backends.reading import facts_of, read_model
from graphprune.backends.tvm.package import library
from graphprune.backends.tvm.signals import deferred
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.onnx_walk import nodes
from graphprune.sample_inputs import Inputs, input_shapes, input_specs
from graphprune.text import first_line

__all__ = [
    "ELSEWHERE",
    "Imported",
    "from_onnx",
    "leave_blocks",
    "local_values",
    "onnx_specs",
    "refusal",
    "required_dims",
]

ELSEWHERE = "--backend ort compiles it"
DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Where TVM's front end takes operators from; it looks at their names alone."""

OPSET = 13
"""The oldest version of ONNX's operators that the front end reads without gaps: slices of before lack their steps."""

IN_PLACE = frozenset({"Constant", "If"})
"""Operators that the front end reads without an entry in its table."""


@dataclass(frozen=True)
class Imported:
    """A Relax module, what goes in and comes out, what the manifest says of it, and how the original computes.

    ``quantised`` tells that it rounds to integers inside, so that equal results are not to be expected.
    """

    module: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    facts: Mapping[str, Any]
    reference: Callable[[Inputs], list[np.ndarray[Any, Any]]]
    quantised: bool = False


def from_onnx(program: Any, name: str, dims: Mapping[str, int] | None) -> Imported:
    """The module of an ONNX model whose symbolic dimensions have the sizes that ``dims`` gives them.

    ONNX Runtime folds constants and batch normalisations first, so that TVM meets fewer operators.

    Raises:
        ModelError: the model cannot be read, or TVM's front end does not support an operator.
        UsageError: it has no dimension of a name in ``dims``.
    """
    model = read_model(program, name)
    facts = facts_of(model, name)
    input_shapes(input_specs(model), dims)  # raises for a name that there is not
    original = session(model)
    _set_dims(model, dims or {})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        save_optimized(model, path, "basic")
        proto = _plain(_modern(onnx.load(path)))
    _check_operators(proto, name)
    tvm = library()
    try:
        with deferred(), quiet():
            module = tvm.relax.frontend.onnx.from_onnx(proto, sanitize_input_names=True)
    except Exception as error:  # the front end raises whatever it comes upon
        leave_blocks(error)
        raise ModelError(refusal(name, error, required_dims(onnx_specs(proto.graph.input, proto)))) from error
    return Imported(
        module,
        onnx_specs(proto.graph.input, proto),
        onnx_specs(proto.graph.output, proto),
        facts,
        lambda feed: [np.asarray(each) for each in original.run(None, feed)],
        any("QuantizeLinear" in node.op_type for node in proto.graph.node),
    )


def onnx_specs(values: Any, proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs or outputs of a model as an executable lists them."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return tuple(_spec(value) for value in values if value.name not in stored)


def required_dims(specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """The symbolic dimensions of inputs in order; one without a name is called by its input and position."""
    keys = [
        dim or f"{spec.name}:{position}"
        for spec in specs
        for position, dim in enumerate(spec.dims)
        if not isinstance(dim, int)
    ]
    return tuple(dict.fromkeys(map(str, keys)))


def refusal(name: str, error: Exception, open_dims: tuple[str, ...] = ()) -> str:
    """One line for what a front end raised: at which operator, why, and what to do."""
    place = next(_places(error.__traceback__), "")
    where = f"TVM's front end fails at {place}" if place else "TVM's front end fails"
    sizes = f"give its dimensions sizes (--dims {open_dims[0]}=1), or " if open_dims else ""
    return f"{name}: {where} ({first_line(error)}); {sizes}{ELSEWHERE}"


def _modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model in an operator set that the front end knows well, if it is older and can be converted."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in DOMAINS[:2]), default=OPSET)
    if opset >= OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except Exception:  # the converter lacks operators, and says so in many ways
        return proto


def _plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` with nothing where Resize is given an empty scale or region, which the front end takes for a scale."""
    empty = {tensor.name for tensor in proto.graph.initializer if 0 in tensor.dims}
    for node in proto.graph.node:
        if node.op_type == "Resize":
            node.input[1:] = ["" if name in empty else name for name in node.input[1:]]
    return proto


def leave_blocks(error: Exception) -> None:
    """End what a front end had begun when it failed: TVM writes to the terminal about it otherwise."""
    for values in local_values(error.__traceback__):
        builder = getattr(values.get("self"), "bb", None) or getattr(values.get("self"), "block_builder", None)
        with contextlib.suppress(Exception):  # the last one is no block
            while builder is not None:
                builder._end_block()


def _check_operators(proto: onnx.ModelProto, name: str) -> None:
    """Raise :class:`ModelError` with the first operator that the front end has no entry for, and how many there are."""
    from tvm.relax.frontend.onnx import onnx_frontend

    known = onnx_frontend._get_convert_map().keys() | IN_PLACE
    missing = [node for node in _nodes(proto.graph) if node.op_type not in known or node.domain not in DOMAINS]
    if not missing:
        return
    first = missing[0]
    kind = f"{first.domain}.{first.op_type}" if first.domain else first.op_type
    others = sorted({node.op_type for node in missing} - {first.op_type})
    more = f", nor {', '.join(others)}" if others else ""
    raise ModelError(f"{name}: TVM does not support the operator {kind} {_called(first)}{more}; {ELSEWHERE}")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and bodies after the one that holds them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _called(node: onnx.NodeProto) -> str:
    return f"(node '{node.name}')" if node.name else f"(the node of '{next(iter(node.output), '')}')"


def local_values(trace: TracebackType | None) -> list[Mapping[str, Any]]:
    """The local variables of the frames that an error went through, the innermost first."""
    found: list[Mapping[str, Any]] = []
    while trace is not None:
        found.insert(0, trace.tb_frame.f_locals)
        trace = trace.tb_next
    return found


def _places(trace: TracebackType | None) -> Iterator[str]:
    """The operators that the frames of an error were at, the innermost first."""
    for values in local_values(trace):
        node: Any = values.get("node")
        if isinstance(node, onnx.NodeProto):
            yield f"{node.op_type} {_called(node)}"
        elif type(node).__module__ == "torch.fx.node":
            yield f"{node.target} (node '{node.name}')"


def _set_dims(model: ir.Model, dims: Mapping[str, int]) -> None:
    """Write the sizes of symbolic dimensions, and of expressions of them, into all shapes of a model."""
    if not dims:
        return
    values = [*model.graph.inputs, *(output for node in nodes(model) for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            sizes = [_sized(dim, f"{value.name}:{position}", dims) for position, dim in enumerate(value.shape)]
            value.shape = ir.Shape(sizes)


def _sized(dim: int | ir.SymbolicDim, place: str, dims: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int):  # old exporters write -1 for a size that is open
        return dim if dim >= 0 else dims.get(place, dim)
    if not dim.value:
        return dims.get(place, dim)
    if dim.value in dims:
        return dims[dim.value]
    try:
        found = dim.evaluate(dims)
    except (ValueError, KeyError):  # no expression, or one of other symbols
        return dim
    return found if isinstance(found, int) else dim


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise UsageError(f"'{value.name}' is no tensor of a known rank, which TVM needs; {ELSEWHERE}")
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim]
    dims = tuple(None if isinstance(size, int) and size < 0 else size for size in sizes)
    return TensorSpec(value.name, ir.DataType(kind.elem_type).numpy().name, dims)
