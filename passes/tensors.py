"""Small helpers that the passes on ONNX share: constants, renaming, and by-passing a node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_walk import bodies, graphs
from graphprune.frontends.onnx_walk import nodes as nodes_of

__all__ = [
    "Names",
    "alias",
    "bodies",
    "bypass",
    "constant",
    "detach",
    "is_constant",
    "nodes_of",
    "read_small",
    "rename",
    "replace_by_constant",
]


def is_constant(value: ir.Value | None) -> bool:
    """Return whether ``value`` is an initializer that no caller can override."""
    return value is not None and value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def read_small(value: ir.Value | None, limit: int = 65536) -> np.ndarray | None:
    """Return the contents of a constant of at most ``limit`` bytes, else None."""
    if value is None or not is_constant(value):
        return None
    tensor = value.const_value
    assert tensor is not None
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes > limit:
        return None
    return tensor.numpy()


def alias(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """Return the same data under another name; ``tensor`` keeps its own, and nothing is read or copied."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location, tensor.offset, tensor.length, tensor.dtype,
            shape=tensor.shape, name=name, base_dir=tensor.base_dir,
        )  # fmt: skip
    if isinstance(tensor, ir.StringTensor):
        return ir.StringTensor(tensor.raw, shape=tensor.shape, name=name)
    if isinstance(tensor, ir.Tensor):
        return ir.Tensor(tensor.raw, tensor.dtype, shape=tensor.shape, name=name)
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def rename(value: ir.Value, name: str) -> None:
    """Rename ``value``; its tensor, which a clone of the model may share, keeps its name."""
    if value.const_value is not None:
        value.const_value = alias(value.const_value, name)
    value.name = name


class Names:
    """The names taken in a model, over all its graphs."""

    def __init__(self, model: ir.Model) -> None:
        self.taken: set[str] = set()
        for graph in graphs(model):
            self.taken.update(graph.initializers)
            self.taken.update(value.name for value in graph.inputs if value.name)
            self.taken.update(output.name for node in graph for output in node.outputs if output.name)

    def fresh(self, name: str, form: Callable[[str, int], str] = "{}_{}".format) -> str:
        """Take and return ``name``, or the first free one of its numbered forms."""
        candidate, count = name, 0
        while candidate in self.taken:
            count += 1
            candidate = form(name, count)
        self.taken.add(candidate)
        return candidate


def constant(model: ir.Model, name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
    """Register ``array`` as an initializer of the main graph; ``name`` must be free."""
    tensor = ir.Tensor(array, dtype, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def replace_by_constant(model: ir.Model, value: ir.Value, array: np.ndarray, dtype: ir.DataType | None = None) -> None:
    """Let everything that reads ``value`` read an initializer of its name instead; the producer is left dead."""
    name = value.name
    assert name is not None
    value.name = None
    fixed = constant(model, name, array, dtype)
    value.replace_all_uses_with(fixed)


def bypass(node: ir.Node) -> bool:
    """Remove ``node``, whose first output equals its first input; returns False where it has to stay.

    It stays where it gives a graph output its name and the input cannot take it: a graph input, an initializer, a
    value of another graph, or one that is a graph output already.
    """
    source, result = node.inputs[0], node.outputs[0]
    graph = node.graph
    if source is None or not isinstance(graph, ir.Graph):
        return False
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if result.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        if sum(output is result for output in graph.outputs) != 1:
            return False
    _keep_knowledge(source, result)
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    if source.is_graph_output():
        name, result.name = result.name, None
        assert name is not None
        source.name = name
    graph.remove(node, safe=True)
    return True


def _keep_knowledge(source: ir.Value, result: ir.Value) -> None:
    """Let the value that stays know what was declared about the one that goes."""
    if source.type is None:
        source.type = result.type
    if result.shape is not None and (source.shape is None or result.is_graph_output()):
        source.shape = result.shape


def detach(node: ir.Node) -> None:
    """Make the nodes inside the subgraphs of ``node`` use nothing any more, before ``node`` is removed."""
    for body in bodies(node):
        body.outputs.clear()
        for inner in body:
            detach(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
