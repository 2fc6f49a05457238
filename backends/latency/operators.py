"""Models of one kernel, at any widths: the nodes with their real attributes, weights and inputs made up."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from graphprune.backends.latency.kernels import CONTENTS, Kernel, Operand, value
from graphprune.rules.call import AttributeTarget, InputTarget
from graphprune.sample_inputs import Inputs

__all__ = ["NOTHING", "Single", "nothing", "signature", "single"]

NOTHING = "nothing"
"""The signature of :func:`nothing`."""

IR_VERSION = 10


@dataclass(frozen=True)
class Single:
    """A model of one kernel, and what to feed it."""

    model: onnx.ModelProto
    feeds: Inputs


def signature(kernel: Kernel, widths: Sequence[int]) -> str:
    """What a measured time is stored under: operators, attributes, shapes and types, in words.

    Equal kernels of one program, and of another one, have equal signatures.
    """
    extents = dict(zip(kernel.slots, widths, strict=True))
    parts = [_spelled(node) for node in kernel.nodes]
    shapes = []
    for operand in kernel.operands:
        shape = "x".join(map(str, _shape(operand, extents))) or "scalar"
        contents = _contents(operand, extents)
        shapes.append(f"{operand.dtype.name.lower()}[{shape}]{'w' if operand.stored is not None else ''}{contents}")
    sizes = [f"{value((edit.value,), extents) + edit.offset}" for edit in kernel.edits]
    return f"{' + '.join(parts)} | {' '.join(shapes)}{' | ' + ' '.join(sizes) if sizes else ''}"


def single(kernel: Kernel, widths: Sequence[int], opsets: Mapping[str, int]) -> Single:
    """The model of ``kernel`` where its slots have ``widths``; equal arguments give equal models."""
    extents = dict(zip(kernel.slots, widths, strict=True))
    generator = np.random.default_rng(zlib.crc32(signature(kernel, widths).encode()))
    feeds: Inputs = {}
    stored: dict[str, np.ndarray[Any, Any]] = {}
    inputs: list[onnx.ValueInfoProto] = []
    for operand in kernel.operands:
        array = _made(operand, extents, generator)
        if operand.stored is not None:
            stored[operand.name] = array
            continue
        feeds[operand.name] = array
        inputs.append(onnx.helper.make_tensor_value_info(operand.name, operand.dtype.value, array.shape))
    nodes = [ir.serde.serialize_node(node) for node in kernel.nodes]
    for edit in kernel.edits:
        number = value((edit.value,), extents) + edit.offset
        if isinstance(edit.target, AttributeTarget):
            _set(nodes[edit.node], edit.target, number)
        else:
            assert isinstance(edit.target, InputTarget)
            name = nodes[edit.node].input[edit.target.operand]
            if name in stored:
                stored[name].reshape(-1)[edit.target.index] = number
    last = kernel.nodes[-1]
    outputs = [
        onnx.helper.make_tensor_value_info(output.name or "", (output.dtype or ir.DataType.FLOAT).value, None)
        for output in last.outputs[:1]
    ]
    graph = onnx.helper.make_graph(
        nodes, kernel.op, inputs, outputs, [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    return Single(onnx.shape_inference.infer_shapes(model), feeds)  # some runtimes want to know the outputs' ranks


def nothing() -> Single:
    """A model that copies one number: what calling a runtime takes by itself."""
    given, made = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], NOTHING, [given], [made])
    imports = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    return Single(model, {"x": np.ones(1, np.float32)})


def _shape(operand: Operand, extents: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(value((dim,), extents) for dim in operand.dims)


def _contents(operand: Operand, extents: Mapping[int, int]) -> str:
    """What is in a small stored operand of integers or a scalar, since it may decide how long an operator takes."""
    if not _is_kept(operand) or operand.stored is None:
        return ""
    return json.dumps(operand.stored.numpy().reshape(-1).tolist(), separators=(",", ":"))


def _is_kept(operand: Operand) -> bool:
    """Whether a stored operand is taken as it is."""
    if operand.stored is None or any(dim.slots for dim in operand.dims):
        return False
    size = math.prod(dim.coefficient for dim in operand.dims)
    return size <= 1 or (size <= CONTENTS and operand.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16))


def _made(operand: Operand, extents: Mapping[int, int], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if operand.stored is not None and _is_kept(operand):
        return np.array(operand.stored.numpy())
    shape, dtype = _shape(operand, extents), operand.dtype.numpy()
    if dtype.kind != "f":
        return np.zeros(shape, dtype)
    # Above zero, so that variances, roots and logarithms are what they are in a network; nothing is near subnormal.
    return generator.uniform(0.1, 1.0, shape).astype(dtype)


def _set(node: onnx.NodeProto, target: AttributeTarget, number: int) -> None:
    for attribute in node.attribute:
        if attribute.name == target.name:
            if target.index is None:
                attribute.i = number
            else:
                attribute.ints[target.index] = number


def _spelled(node: ir.Node) -> str:
    pairs = []
    for name, attribute in sorted(node.attributes.items()):
        shown = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            shown = zlib.crc32(attribute.as_tensor().tobytes())
        pairs.append(f"{name}={list(shown) if isinstance(shown, tuple | list) else shown}".replace(" ", ""))
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type}" + (f"({' '.join(pairs)})" if pairs else "")
