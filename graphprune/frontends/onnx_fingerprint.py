"""A name for what a model computes with, the same wherever and however the model is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphprune.frontends.onnx_attributes import held
from graphprune.frontends.onnx_data import byte_size, graphs

__all__ = ["fingerprint"]

CONTENT_BYTES = 1 << 20
"""How many bytes of tensor content enter the fingerprint, smallest tensors first; the rest counts by type and shape."""


def fingerprint(model: ir.Model) -> str:
    """Return the SHA-256, in hexadecimal, of a model's operators, connections, attributes and tensors.

    File names, external storage, documentation, metadata and producer do not enter. Large tensors count by name, type
    and shape, so that a model of many gigabytes takes no longer than its graph.
    """
    stored: list[tuple[int, int, ir.TensorProtocol]] = []
    digest = hashlib.sha256()
    for domain, version in sorted(model.opset_imports.items()):
        _feed(digest, "opset", domain, version)
    for identifier in sorted(model.functions):
        _feed(digest, "function", *identifier, *model.functions[identifier].attributes)
    for index, graph in enumerate(graphs(model)):
        _feed(digest, "graph", index)
        for part in _describe(graph):
            _feed(digest, *part)
        for name in sorted(graph.initializers):
            if (tensor := graph.initializers[name].const_value) is not None:
                _feed(digest, "initializer", name, tensor.dtype.name, *tensor.shape.numpy())
                stored.append((_bytes(tensor), len(stored), tensor))
        for node in graph:
            for _, attribute in sorted(node.attributes.items()):
                for tensor in _attribute_tensors(attribute):
                    _feed(digest, tensor.dtype.name, *tensor.shape.numpy())
                    stored.append((_bytes(tensor), len(stored), tensor))
    total = 0
    for size, index, tensor in sorted(stored, key=lambda item: item[:2]):
        total += size
        if total > CONTENT_BYTES:
            break
        _feed(digest, index)
        digest.update(_content(tensor))
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, *parts: object) -> None:
    digest.update((repr(parts) + "\n").encode("utf-8", "backslashreplace"))


def _describe(graph: ir.Graph) -> Iterator[tuple[object, ...]]:
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            yield kind, value.name, str(value.type), str(value.shape)
    for node in graph:
        yield "node", node.domain, node.op_type, node.overload
        yield tuple(None if value is None else value.name for value in node.inputs)
        yield tuple(value.name for value in node.outputs)
        for name, attribute in sorted(node.attributes.items()):
            if attribute.is_ref():
                yield name, "reference", attribute.ref_attr_name
            elif attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                yield name, attribute.type.name
            elif attribute.type == ir.AttributeType.GRAPHS:
                yield name, attribute.type.name, len(attribute.as_graphs())
            else:
                value = attribute.value
                yield name, attribute.type.name, tuple(value) if isinstance(value, Sequence) else str(value)


def _attribute_tensors(attribute: ir.Attr) -> list[ir.TensorProtocol]:
    if attribute.is_ref() or attribute.type not in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
        return []
    return [held(attribute)] if attribute.type == ir.AttributeType.TENSOR else list(attribute.as_tensors())


def _bytes(tensor: ir.TensorProtocol) -> int:
    if tensor.dtype == ir.DataType.STRING:
        return len(_content(tensor))
    return byte_size(tensor.dtype, list(tensor.shape.numpy()))


def _content(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        return repr(tensor.numpy().tolist()).encode()
    content = tensor.tobytes()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return content
