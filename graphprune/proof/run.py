"""Runs a model in ONNX Runtime for comparison, in pieces where its weights are large.

Graph optimisation is off: fusions would differ between two graphs that ought to be compared operator by operator.
Half-precision models are run in float32: the proof is about which numbers are combined, and the rounding of float16
(one part in 2000 at each operator) would drown what it looks for; it also runs bfloat16, for which ONNX Runtime's CPU
provider has few kernels. Random operators get a fixed seed.

The top-level nodes are dealt into consecutive segments whose weights stay below a limit; each segment is a session of
its own, run on all inputs and dropped. Weights are handed over as mapped memory, not copied into the session, so the
peak is one segment and the live activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper

from graphprune.proof.weights import array_of
from graphprune.sample_inputs import Inputs

__all__ = ["Outputs", "Runner", "Segment", "reads", "segment_proto"]

Outputs: TypeAlias = list[npt.NDArray[Any]]

Loaded: TypeAlias = tuple[onnxruntime.InferenceSession, tuple[npt.NDArray[Any], ...]]

SEGMENT_BYTES = 1 << 28
"""Weights of one session at most, unless a single operator has more."""

EMBEDDED_BYTES = 1024
"""Constants up to this size travel in the graph, where shape inference can see them."""

SILENT = 4  # log severity: errors come back as exceptions
SEEDED = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "precision"})
HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
HALF_CODES = frozenset(int(dtype) for dtype in HALF)
FLOAT = onnx.TensorProto.FLOAT
SHARED = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64}
)
"""Types whose numpy arrays ONNX Runtime takes as they lie in memory."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive nodes, and the names of the values that cross into and out of them."""

    nodes: tuple[ir.Node, ...]
    constants: tuple[ir.Value, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Runner:
    """A model that can be run; ``limit`` bounds the bytes of weights that a session holds."""

    def __init__(self, model: ir.Model, limit: int = SEGMENT_BYTES) -> None:
        self.model = model
        self.segments = list(_segments(model, limit))
        self._only: Loaded | None = None

    def __call__(self, inputs: Inputs) -> Outputs:
        """The graph outputs in order; whatever ONNX Runtime raises passes through."""
        return self.run([inputs])[0]

    def run(self, feeds: Sequence[Inputs]) -> list[Outputs]:
        """The graph outputs for each of several inputs; a segment is loaded once for all of them."""
        names = [value.name or "" for value in self.model.graph.outputs]
        values: list[dict[str, Any]] = [
            {name: _widened_array(np.asarray(array)) for name, array in feed.items()} for feed in feeds
        ]
        last = {name: index for index, segment in enumerate(self.segments) for name in segment.inputs}
        for index, segment in enumerate(self.segments):
            session, _alive = self._session(segment, values[0])
            for known in values:
                results = session.run(list(segment.outputs), {name: known[name] for name in segment.inputs})
                known.update(zip(segment.outputs, results, strict=True))
                for name in segment.inputs:
                    if last[name] == index and name not in names:
                        del known[name]
            del session, _alive
        return [[known[name] for name in names] for known in values]

    def _session(self, segment: Segment, values: dict[str, Any]) -> Loaded:
        """The session of a segment, and the arrays that must outlive it."""
        if self._only is not None:
            return self._only
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "1")
        proto, shared = segment_proto(self.model, segment, values)
        if shared:
            arrays = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in shared.values()]
            options.add_external_initializers(list(shared), arrays)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        loaded = session, tuple(shared.values())
        if len(self.segments) == 1:
            self._only = loaded
        return loaded


# -- dealing nodes out -------------------------------------------------------------------------------------------------


def _segments(model: ir.Model, limit: int) -> Iterator[Segment]:
    graph = model.graph
    runs: list[list[ir.Node]] = [[]]
    held: set[str] = set()
    size = 0
    for node in graph:
        new = {
            name: _bytes(graph.initializers[name])
            for name in reads(node)
            if name in graph.initializers and name not in held
        }
        if runs[-1] and size + sum(new.values()) > limit and sum(new.values()):
            runs.append([])
            held, size = set(), 0
        runs[-1].append(node)
        held |= new.keys()
        size += sum(new.values())
    needs = [dict.fromkeys(name for node in run for name in reads(node)) for run in runs]
    wanted = {value.name or "" for value in graph.outputs}
    found: list[Segment] = []
    for run, read in zip(reversed(runs), reversed(needs), strict=True):
        made = {value.name or "": None for node in run for value in node.outputs if value.name}
        stored = (*read, *(v.name or "" for v in graph.outputs)) if run is runs[-1] else read
        constants = dict.fromkeys(name for name in stored if name in graph.initializers)
        outside = [name for name in read if name not in made and name not in constants]
        outputs = [name for name in made if name in wanted]
        if run is runs[-1]:
            outputs = list(dict.fromkeys(v.name or "" for v in graph.outputs))
            outside += [name for name in outputs if name not in made and name not in constants and name not in outside]
        found.append(
            Segment(tuple(run), tuple(graph.initializers[name] for name in constants), tuple(outside), tuple(outputs))
        )
        wanted = (wanted | set(outside)) - made.keys()
    yield from reversed(found)


def reads(node: ir.Node) -> Iterator[str]:
    """Names of the values that a node reads, those that its bodies take from outside included."""
    inside: set[str] = set()
    for attribute in node.attributes.values():
        for body in _bodies(attribute):
            inside.update(value.name or "" for value in (*body.inputs, *body.initializers.values()))
            for inner in body:
                inside.update(value.name or "" for value in inner.outputs)
                yield from (name for name in reads(inner) if name not in inside)
            yield from (value.name or "" for value in body.outputs if value.name not in inside)
    yield from (value.name for value in node.inputs if value is not None and value.name)


def _bodies(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


# -- making protos -----------------------------------------------------------------------------------------------------


def segment_proto(
    model: ir.Model, segment: Segment, values: dict[str, Any]
) -> tuple[onnx.ModelProto, dict[str, npt.NDArray[Any]]]:
    """A model of one segment, and the arrays that its larger constants share."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    graph = proto.graph
    graph.name = "verified"
    graph.node.extend(ir.serde.serialize_node(node) for node in segment.nodes)
    declared = {value.name: value for value in model.graph.inputs}
    for name in segment.inputs:
        if name in declared:
            graph.input.append(ir.serde.serialize_value(declared[name]))
        else:
            array = np.asarray(values[name])
            graph.input.add(name=name).type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.outputs)
    shared: dict[str, npt.NDArray[Any]] = {}
    for value in segment.constants:
        _constant(value, graph, shared)
    _widen_graph(graph)
    return proto, shared


def _constant(value: ir.Value, graph: onnx.GraphProto, shared: dict[str, npt.NDArray[Any]]) -> None:
    tensor, name = value.const_value, value.name or ""
    assert tensor is not None
    if tensor.nbytes <= EMBEDDED_BYTES or tensor.dtype not in SHARED | HALF:
        if isinstance(tensor, ir.ExternalTensor):
            tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype)
        added = graph.initializer.add()
        ir.serde.serialize_tensor_into(added, tensor)
        added.name = name
        return
    array = _widened_array(array_of(tensor))
    shared[name] = array
    added = graph.initializer.add(
        name=name,
        dims=array.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, entry in (("location", "memory"), ("offset", "0"), ("length", str(array.nbytes))):
        added.external_data.add(key=key, value=entry)


def _widened_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _widen_graph(graph: onnx.GraphProto) -> None:
    """Make every half-precision value of a graph and its bodies a float32 one; fix the seeds of random operators."""
    del graph.value_info[:]
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in HALF_CODES:
            info.type.tensor_type.elem_type = FLOAT
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        if node.op_type in SEEDED and not any(attribute.name == "seed" for attribute in node.attribute):
            node.attribute.add(name="seed", type=onnx.AttributeProto.FLOAT, f=1.0)
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in HALF_CODES:
                attribute.i = FLOAT
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            for body in attribute.graphs:
                _widen_graph(body)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in HALF_CODES:
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
