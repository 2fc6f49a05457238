"""A small builder of ONNX graphs: seeded weights, shapes tracked as the graph grows, the form each opset wants.

A dimension is an ``int``, or a ``str`` where it is symbolic. Nothing is inferred by onnx: each call states or computes
its result's shape, so building costs microseconds a node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from graphprune.models.reference.values import Array, Dim, Shape, Value, broadcast, window

__all__ = ["Array", "Dim", "GraphBuilder", "Shape", "Value", "window"]


@dataclass
class GraphBuilder:
    """Collects nodes and initializers of one graph; every weight comes from ``rng``."""

    opset: int = 17
    seed: int = 0
    dtype: npt.DTypeLike = np.float32
    name: str = "graph"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self._scope: list[str] = []
        self._taken: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of what is built inside with ``name``."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def fresh(self, stem: str) -> str:
        """Return a name that is not taken yet, under the current scope."""
        full = ".".join([*self._scope, stem])
        count = self._taken.get(full, 0)
        self._taken[full] = count + 1
        return full if count == 0 else self.fresh(f"{stem}_{count}")

    # graph inputs, constants and weights

    def input(self, name: str, shape: Shape, dtype: npt.DTypeLike | None = None) -> Value:
        """Add a graph input."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return Value(name, shape)

    def output(self, value: Value, name: str | None = None, dtype: npt.DTypeLike | None = None) -> Value:
        """Make ``value`` a graph output, renamed to ``name`` by an Identity if one is given."""
        if name is not None:
            self.nodes.append(helper.make_node("Identity", [value.name], [name], name=f"output/{name}"))
            value = Value(name, value.shape)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.outputs.append(helper.make_tensor_value_info(value.name, kind, value.shape))
        return value

    def constant(self, array: Array, name: str = "constant") -> Value:
        """Add an initializer that holds ``array``."""
        full = self.fresh(name)
        self.initializers.append(numpy_helper.from_array(array, full))
        return Value(full, array.shape)

    def ints(self, *values: int) -> Value:
        """Add a one-dimensional int64 constant."""
        return self.constant(np.asarray(values, np.int64), "ints")

    def scalar(self, value: float) -> Value:
        """Add a rank-zero constant of the graph's type."""
        return self.constant(np.asarray(value, self.dtype), "scalar")

    def weight(self, *shape: int, scale: float | None = None, name: str = "weight") -> Value:
        """Add a normal weight; its scale is ``sqrt(1.5 / fan in)`` for rank two and up, read as [out, in, *kernel]."""
        if scale is None:
            scale = math.sqrt(1.5 / max(1, math.prod(shape[1:]))) if len(shape) > 1 else 0.1
        values = self.rng.standard_normal(shape, np.float32)
        return self.constant((values * np.float32(scale)).astype(self.dtype), name)

    def gain(self, *shape: int, name: str = "gain") -> Value:
        """Add a positive weight around one, as normalisations have."""
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(self.dtype), name)

    # nodes

    def op(self, kind: str, *inputs: Value | None, shape: Shape | None = None, **attributes: Any) -> Value:
        """Add a node with one output; without ``shape`` it is the broadcast of the inputs' shapes."""
        if shape is None:
            shape = broadcast([value.shape for value in inputs if value is not None])
        return self.ops(kind, *inputs, shapes=[shape], **attributes)[0]

    def ops(
        self, kind: str, *inputs: Value | None, shapes: Sequence[Shape], domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Add a node with ``len(shapes)`` outputs; attributes that are None are left out."""
        name = self.fresh(kind)
        names = [name] if len(shapes) == 1 else [f"{name}:{index}" for index in range(len(shapes))]
        operands = [value.name if value is not None else "" for value in inputs]
        while operands and not operands[-1]:
            operands.pop()
        if domain:
            self.domains[domain] = 1
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, operands, names, name=f"{name}/node", domain=domain or None, **given))
        return [Value(output, shape) for output, shape in zip(names, shapes, strict=True)]

    def add(self, a: Value, b: Value) -> Value:
        """Return ``a + b``."""
        return self.op("Add", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """Return ``a * b``."""
        return self.op("Mul", a, b)

    def matmul(self, a: Value, b: Value) -> Value:
        """Return the (batched) matrix product."""
        lead = broadcast([a.shape[:-2], b.shape[:-2]]) if len(a.shape) > 2 or len(b.shape) > 2 else ()
        return self.op("MatMul", a, b, shape=(*lead, a.shape[-2], b.shape[-1]))

    def conv(
        self,
        x: Value,
        out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        weight: Value | None = None,
    ) -> Value:
        """Convolve ``x`` [n, c, *s] with ``out`` filters; padding keeps the size at stride one unless given."""
        rank = len(x.shape) - 2
        padding = dilation * (kernel - 1) // 2 if padding is None else padding
        weight = weight or self.weight(out, x[1] // groups, *[kernel] * rank)
        return self.op(
            "Conv",
            x,
            weight,
            self.weight(out, name="bias") if bias else None,
            shape=(x.shape[0], out, *(window(size, kernel, stride, padding, dilation) for size in x.shape[2:])),
            kernel_shape=[kernel] * rank,
            strides=[stride] * rank,
            pads=[padding] * (2 * rank),
            dilations=[dilation] * rank,
            group=groups,
        )

    def linear(self, x: Value, out: int, *, bias: bool = True, weight: Value | None = None) -> Value:
        """Return ``x @ weight + bias`` over the last axis, as MatMul and Add; the weight is [in, out]."""
        weight = weight or self.weight(x[-1], out, scale=math.sqrt(1.5 / x[-1]))
        y = self.matmul(x, weight)
        return self.add(self.weight(out, name="bias"), y) if bias else y

    def gemm(self, x: Value, out: int, *, bias: bool = True) -> Value:
        """Return ``x @ weight.T + bias`` for ``x`` [n, i]; the weight is [out, in], as PyTorch exports it."""
        bias_value = self.weight(out, name="bias") if bias else None
        return self.op("Gemm", x, self.weight(out, x[1]), bias_value, shape=(x.shape[0], out), transB=1)

    def batch_norm(self, x: Value) -> Value:
        """Normalise the channels of ``x`` [n, c, *s] by stored statistics."""
        c = x[1]
        operands = [self.gain(c), self.weight(c, name="bias"), self.weight(c, name="mean"), self.gain(c, name="var")]
        return self.op("BatchNormalization", x, *operands, shape=x.shape, epsilon=1e-5)

    def relu(self, x: Value) -> Value:
        """Return ``max(x, 0)``."""
        return self.op("Relu", x)

    def pool(self, kind: str, x: Value, kernel: int, stride: int, padding: int = 0) -> Value:
        """Pool ``x`` [n, c, h, w] by ``kind`` (MaxPool or AveragePool)."""
        spatial = (window(size, kernel, stride, padding) for size in x.shape[2:])
        rank = len(x.shape) - 2
        options: dict[str, Any] = {"kernel_shape": [kernel] * rank, "strides": [stride] * rank}
        if kind == "AveragePool":
            options["count_include_pad"] = 1
        return self.op(kind, x, shape=(*x.shape[:2], *spatial), pads=[padding] * (2 * rank), **options)

    def global_pool(self, x: Value) -> Value:
        """Average over space: [n, c, *s] -> [n, c, 1, ...]."""
        return self.op("GlobalAveragePool", x, shape=(*x.shape[:2], *[1] * (len(x.shape) - 2)))

    # movement, in the form of the opset

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Concatenate along ``axis``."""
        axis %= len(values[0].shape)
        sizes = [value.shape[axis] for value in values]
        total: Dim = sum(size for size in sizes if isinstance(size, int))
        if any(isinstance(size, str) for size in sizes):
            total = "+".join(map(str, sizes))
        shape = (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :])
        return self.op("Concat", *values, shape=shape, axis=axis)

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        """Split along ``axis`` into ``sizes``; an attribute before opset 13, an input from then on."""
        axis %= len(x.shape)
        shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
        if self.opset < 13:
            return self.ops("Split", x, shapes=shapes, axis=axis, split=list(sizes))
        return self.ops("Split", x, self.ints(*sizes), shapes=shapes, axis=axis)

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1, *, extent: Dim | None = None) -> Value:
        """Slice ``x[start:stop:step]`` along ``axis``; say ``extent`` where the axis is symbolic."""
        if extent is None:
            extent = len(range(*slice(start, stop, step).indices(x[axis])))
        shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
        if self.opset < 10:
            if step != 1:
                raise ValueError("Slice has no steps before opset 10; choose a newer opset")
            return self.op("Slice", x, shape=shape, axes=[axis], starts=[start], ends=[stop])
        steps = self.ints(step) if step != 1 else None
        return self.op("Slice", x, self.ints(start), self.ints(stop), self.ints(axis), steps, shape=shape)

    def reshape(self, x: Value, target: Sequence[int], shape: Shape) -> Value:
        """Reshape to the constant ``target`` (0 copies, -1 is inferred); ``shape`` is what comes out."""
        return self.op("Reshape", x, self.ints(*target), shape=shape)

    def transpose(self, x: Value, *perm: int) -> Value:
        """Permute the axes."""
        return self.op("Transpose", x, shape=tuple(x.shape[axis] for axis in perm), perm=list(perm))

    def unsqueeze(self, x: Value, axis: int) -> Value:
        """Insert an axis of size one at ``axis``."""
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        if self.opset < 13:
            return self.op("Unsqueeze", x, shape=shape, axes=[axis])
        return self.op("Unsqueeze", x, self.ints(axis), shape=shape)

    def squeeze(self, x: Value, *axes: int) -> Value:
        """Drop the axes of size one at ``axes``."""
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
        if self.opset < 13:
            return self.op("Squeeze", x, shape=shape, axes=list(axes))
        return self.op("Squeeze", x, self.ints(*axes), shape=shape)

    def gather(self, x: Value, indices: Value, axis: int) -> Value:
        """Gather ``indices`` along ``axis``."""
        return self.op("Gather", x, indices, shape=(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), axis=axis)

    def reduce(self, kind: str, x: Value, *axes: int, keepdims: bool = True) -> Value:
        """Reduce by ``kind`` (ReduceMean, ReduceSum, ...); axes are an attribute or an input as the opset has it."""
        positive = {axis % len(x.shape) for axis in axes}
        kept: Shape = tuple(1 if axis in positive else size for axis, size in enumerate(x.shape))
        if not keepdims:
            kept = tuple(size for axis, size in enumerate(x.shape) if axis not in positive)
        if self.opset < (13 if kind == "ReduceSum" else 18):
            return self.op(kind, x, shape=kept, axes=list(axes), keepdims=int(keepdims))
        return self.op(kind, x, self.ints(*axes), shape=kept, keepdims=int(keepdims))

    def clip(self, x: Value, low: float, high: float) -> Value:
        """Clip to [low, high]; attributes before opset 11, inputs from then on."""
        if self.opset < 11:
            return self.op("Clip", x, min=low, max=high)
        return self.op("Clip", x, self.scalar(low), self.scalar(high), shape=x.shape)

    def softmax(self, x: Value) -> Value:
        """Return the softmax over the last axis."""
        return self.op("Softmax", x, axis=len(x.shape) - 1)

    def shape_of(self, x: Value, axis: int) -> Value:
        """Return the size of ``axis`` as a one-element int64 tensor, computed in the graph."""
        shape = self.op("Shape", x, shape=(len(x.shape),))
        return self.op("Gather", shape, self.ints(axis), shape=(1,), axis=0)

    def model(self) -> onnx.ModelProto:
        """Return the model built so far."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(*item) for item in self.domains.items())]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=8 if self.opset < 19 else 10 if self.opset < 23 else 11
        )

    @property
    def elem_type(self) -> int:
        """The graph's element type as onnx numbers it."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
