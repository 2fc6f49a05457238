"""Write out the attention scale that fused operators derive from the head width.

Without the attribute they divide scores by the square root of the width they find, so cutting the width would change
the function beyond what was cut.
"""

from __future__ import annotations

import math
from functools import partial

import onnx_ir as ir

from graphprune.frontends.onnx_attributes import integer, integers
from graphprune.frontends.onnx_walk import nodes
from graphprune.frontends.shape_notation import Dim, parse

__all__ = ["HEAD_WIDTH", "write_attention_scales"]

HEAD_WIDTH = {
    ("", "Attention"): parse("q k v -> q:4[3]|q:3[2]/@q_num_heads"),
    ("com.microsoft", "Attention"): parse(
        "x weights bias -> @qkv_hidden_sizes[0]/@num_heads|bias[0]/3/@num_heads|weights[1]/3/@num_heads"
    ),
    ("com.microsoft", "QAttention"): parse("x weights bias -> weights[1]/3/@num_heads"),
    ("com.microsoft", "PackedAttention"): parse(
        "x weights bias -> @qkv_hidden_sizes[0]/@num_heads|weights[1]/3/@num_heads"
    ),
    ("com.microsoft", "MultiHeadAttention"): parse("q k v -> q:3[2]/@num_heads|q:5[4]"),
    ("com.microsoft", "PackedMultiHeadAttention"): parse("q k v -> q:2[1]/@num_heads|q:4[3]"),
    ("com.microsoft", "DecoderMaskedMultiHeadAttention"): parse("q k v past_k -> k:4[3]|past_k[3]|q:3[2]/@num_heads"),
    ("com.microsoft", "GroupQueryAttention"): parse("q k v past_k -> past_k[3]|k:3[2]/@kv_num_heads"),
}
"""How wide a head is, in the notation of shapes, by domain and operator."""


def write_attention_scales(model: ir.Model) -> int:
    """Set the ``scale`` attribute where it is absent or 0, which means the default; returns how many were set."""
    count = 0
    for node in nodes(model):
        signature = HEAD_WIDTH.get((node.domain, node.op_type))
        if signature is None:
            continue
        scale = node.attributes.get("scale")
        if scale is not None and (scale.is_ref() or scale.value != 0 or node.domain == ""):
            continue
        shapes = {
            name: _dims(value.shape)
            for name, value in zip(signature.operands, node.inputs, strict=False)
            if value is not None and value.shape is not None
        }
        width = signature.shape(signature.outputs[0], shapes, partial(_attribute, node))
        if width and isinstance(width[0], int) and width[0] > 0:
            node.attributes["scale"] = ir.AttrFloat32("scale", 1.0 / math.sqrt(width[0]))
            count += 1
    return count


def _dims(shape: ir.Shape) -> list[Dim]:
    return [dim if isinstance(dim, int) else dim.value for dim in shape]


def _attribute(node: ir.Node, name: str) -> int | list[int] | None:
    return integers(node, name) or integer(node, name, 0) or None
