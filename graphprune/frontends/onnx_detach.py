"""Takes stored tensors out of the protobuf message that a model was decoded from.

Protobuf hands out its bytes as a copy each time they are asked for, and every tensor keeps the whole message in memory.
As arrays they are copied once, and the message goes.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphprune.frontends.onnx_data import graphs

__all__ = ["detach"]


def detach(model: ir.Model) -> None:
    """Let the tensors of ``model`` hold their bytes themselves; what they say and how they are written is unchanged."""
    for graph in graphs(model):
        for value in graph.initializers.values():
            value.const_value = _own(value.const_value)
        for node in graph:
            for name, attribute in node.attributes.data.items():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = _own(attribute.value)
                    if tensor is not None and tensor is not attribute.value:
                        node.attributes[name] = ir.AttrTensor(name, tensor, doc_string=attribute.doc_string)


def _own(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        return tensor
    message = tensor.raw
    if message.HasField("raw_data") and tensor.dtype.bitwidth >= 8:
        return ir.Tensor(
            tensor.numpy(),
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    # Numbers in fields by type, or packed: arrays would be written in another form, or take more memory.
    copy = onnx.TensorProto()
    copy.CopyFrom(message)
    return ir.serde.TensorProtoTensor(copy)
