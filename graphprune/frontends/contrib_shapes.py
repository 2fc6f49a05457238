"""Output shapes of the operators that exporters and ONNX Runtime add to the standard ones, as two tables.

``STANDARD`` says which standard operator has the same output shape, on which of the operands. ``SHAPES`` writes the
dimensions out, one output after the other, in this notation::

    name*        all dimensions of the operand          3, ?            a constant, an unknown dimension
    name[1]      one dimension, name[:2] a few          @attribute      an integer attribute, @attribute[1] of a list
    name:4[1]    the same, if the operand has rank 4    a*b/c|d         arithmetic; `|` takes the first that is known
    _            an output of unknown shape             <name>, <float> the element type: the operand's, or this one

The element type is the first operand's unless the output says otherwise. Signatures:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import defs

from graphprune.frontends.shape_functions import ELEMENTS, infer_matmul, infer_row, infer_slice
from graphprune.frontends.shape_notation import parse

__all__ = ["DOMAIN", "SHAPES", "STANDARD", "Like", "register", "translate"]

DOMAIN = "graphprune.shapes"
"""The private domain of the operators whose shapes come from ``SHAPES``."""

_PREFIX = "ShapeOf"
"""Keeps our operator names apart from all others, which ONNX's reference implementation relies on."""

_FOREIGN = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.contrib", ""})

_NOT_INFERRED = frozenset({"GroupNormalization"})
"""Standard operators that ONNX's inference gives no shape."""


@dataclass(frozen=True, slots=True)
class Like:
    """The standard operator with the same output shape.

    ``operands`` are the positions of its inputs among ours; ``every`` takes each third one and so on for variadic
    ones; ``nhwc`` are the standard operands to move from channels-last to channels-first; ``element`` is the output's
    element type where it differs, and ``scaled`` the operand without which the result of integers is a float.
    """

    op_type: str
    operands: tuple[int, ...] = (0,)
    every: int = 0
    nhwc: tuple[int, ...] = ()
    element: str = ""
    scaled: int = 0


_MATMULS = ("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul")
"""Matrix products whose operands may come transposed."""

STANDARD: dict[str, Like] = {
    "FusedConv": Like("Conv", (0, 1, 2)),
    "FusedGemm": Like("Gemm", (0, 1, 2)),
    "NhwcConv": Like("Conv", (0, 1, 2), nhwc=(0, 1)),
    "NhwcFusedConv": Like("Conv", (0, 1, 2), nhwc=(0, 1)),
    "NhwcMaxPool": Like("MaxPool", nhwc=(0,)),
    "QLinearAdd": Like("Add", (0, 3)),
    "QLinearMul": Like("Mul", (0, 3)),
    "QLinearAveragePool": Like("AveragePool"),
    "QLinearGlobalAveragePool": Like("GlobalAveragePool"),
    "QLinearConcat": Like("Concat", (2,), every=3),
    "QLinearReduceMean": Like("ReduceMean"),
    "QLinearWhere": Like("Where", (0, 1, 4)),
    "QGemm": Like("Gemm", (0, 3), scaled=7),
    "DynamicQuantizeMatMul": Like("MatMul", (0, 1)),
    "QLinearConv": Like("QLinearConv", tuple(range(9))),
    "GemmFastGelu": Like("MatMul", (0, 1)),
    "Pad": Like("Pad", (0, 1, 2)),
    "GatherND": Like("GatherND", (0, 1)),
    "TorchEmbedding": Like("Gather", (0, 1)),
    "GridSample": Like("GridSample", (0, 1)),
    "MaxpoolWithMask": Like("MaxPool"),
    "ComplexMul": Like("Mul", (0, 1)),
    "ComplexMulConj": Like("Mul", (0, 1)),
    "MulInteger": Like("Mul", (0, 2), element="int32"),
    "MatMulInteger16": Like("MatMul", (0, 1), element="int32"),
    "MatMulIntegerToFloat": Like("MatMul", (0, 1), element="float"),
}

SHAPES: dict[str, str] = {
    # The same as the input.
    "Gelu": "x -> x*",
    "FastGelu": "x bias -> x*",
    "QuickGelu": "x -> x*",
    "BiasGelu": "x bias -> x*",
    "BiasAdd": "x bias skip -> x*",
    "BiasSoftmax": "data bias -> data*",
    "QLinearSigmoid": "x -> x*",
    "QLinearLeakyRelu": "x -> x*",
    "QLinearSoftmax": "x -> x*",
    "QuantizeLinear": "x scale zero -> <zero> x*",
    "DequantizeLinear": "x scale zero -> <scale> x*",
    "Inverse": "x -> x*",
    "Trilu": "x -> x*",
    "ScaledSiLU": "x -> x*",
    "GatedAdd": "x -> x*",
    "GatedRMSNorm": "x -> x*",
    "BiasDropout": "x -> x*, x*",
    "LinearAttentionGate": "a -> a*, a*",
    "MoE": "x -> x*",
    "QMoE": "x -> x*",
    "GroupNorm": "x -> x*",
    "GroupNormalization": "x scale bias -> x*",
    "SkipGroupNorm": "x gamma beta skip bias -> x*, x*",
    "RotaryEmbedding": "x position cos sin -> x*",
    "LayerNormalization": "x scale bias -> x*",
    "SimplifiedLayerNormalization": "x scale -> x*",
    "SkipLayerNormalization": "x skip gamma beta bias -> x*, _, _, x*",
    "SkipSimplifiedLayerNormalization": "x skip gamma bias -> x*, _, _, x*",
    "ConvTransposeWithDynamicPads": "x -> _",
    # Contractions.
    "MatMulNBits": "a b scales -> a[:-1] @N",
    "MatMulBnb4": "a b absmax -> a[:-1] @N",
    "MatMulFpQ4": "a b shape -> _",
    "BiasSplitGelu": "x bias -> x[:-1] x[-1]/2",
    "GatherBlockQuantized": "data indices scales -> <scales> indices* data[1:]",
    "SwiGLU": "gate up -> gate[:-1] up[-1]|gate[-1]/2",
    "CDist": "a b -> a[0] b[0]",
    "CropAndResize": "x rois -> rois[0] x[1] ? ?",
    "CausalConvWithState": "x weight bias past -> x*, past*",
    "DynamicQuantizeLSTM": ("x w r -> x[0] r[0] x[1] @hidden_size, r[0] x[1] @hidden_size, r[0] x[1] @hidden_size"),
    # Attention.
    "LinearAttention": (
        "query key value -> query[0] query[1] value[2]*@q_num_heads/@kv_num_heads, "
        "query[0] @kv_num_heads key[2]/@kv_num_heads value[2]/@kv_num_heads"
    ),
    "RelativePositionBias": "table queries keys -> 1 table[1] ? ?",
    "EmbedLayerNormalization": (
        "ids segments words positions kinds gamma beta mask -> "
        "<words> ids[0] ids[1] words[1], <int32> ids[0], <words> ids[0] ids[1] words[1]"
    ),
    "Attention": (
        "x weights bias mask past -> x[:2] @qkv_hidden_sizes[2]|bias[0]/3|weights[1]/3, "
        "2 x[0] @num_heads ? bias[0]/3/@num_heads|weights[1]/3/@num_heads"
    ),
    "QAttention": (
        "x weights bias xs ws mask xz wz past -> <bias> x[:2] bias[0]/3, "
        "<bias> 2 x[0] @num_heads ? bias[0]/3/@num_heads"
    ),
    "MultiHeadAttention": (
        "query key value bias -> "
        "query[0] query[1] value:3[2]|value:4[1]*value:4[3]|key:5[2]*key:5[4]|query:5[2]*query:5[4], "
        "query[0] @num_heads key:4[2]|? query:3[2]/@num_heads|query:5[4], "
        "query[0] @num_heads value:4[2]|? value:3[2]/@num_heads|value:4[3]|key:5[4]|query:5[4]"
    ),
    "DecoderMaskedMultiHeadAttention": (
        "query key value -> query[0] query[1] value:3[2]|value:4[1]*value:4[3]|query[2], "
        "query[0] @num_heads ? query[2]/@num_heads, query[0] @num_heads ? query[2]/@num_heads"
    ),
    "GroupQueryAttention": (
        "query key value past_key past_value -> "
        "query[0] query[1] @num_heads*past_key[3]|key[2]*@num_heads/@kv_num_heads, "
        "query[0] @kv_num_heads ? past_key[3]|key[2]/@kv_num_heads, "
        "query[0] @kv_num_heads ? past_value[3]|value[2]/@kv_num_heads"
    ),
    "PackedAttention": "x weights bias -> x[0] @qkv_hidden_sizes[2]|bias[0]/3|weights[1]/3",
    "PackedMultiHeadAttention": "query key value -> query[0] value:2[1]|query:4[1]*query:4[3]",
    "GatedRelativePositionBias": "x weight bias eco tokens -> x[0] @num_heads x[1] x[1]",
    "RemovePadding": "x lengths -> ? x[2]",
    "RestorePadding": "x offsets -> offsets[0] offsets[1] x[1]",
}


def translate(node: onnx.NodeProto, opset: int, safe: bool = True) -> list[onnx.NodeProto]:
    """Return standard or private nodes with the output shapes of ``node``; a standard node comes back as it is.

    ``safe`` is false for a Slice whose standard shape function might end the process.
    """
    if node.domain not in _FOREIGN:
        return [node]
    if node.domain == "" and node.op_type not in _NOT_INFERRED and _is_standard(node.op_type, opset):
        if not safe:
            _move(node)
        return [node]
    if (like := STANDARD.get(node.op_type)) is not None:
        return _like(node, like)
    if node.op_type in SHAPES or node.op_type in _MATMULS:
        _move(node)
    return [node]


def _move(node: onnx.NodeProto) -> None:
    """Make ``node`` the operator of our own that has its shape function."""
    node.domain, node.op_type = DOMAIN, _PREFIX + node.op_type


@cache
def register() -> None:
    """Make ONNX know the shape functions of ``SHAPES``, in our private domain."""
    option = defs.OpSchema.FormalParameterOption.Variadic
    operands = defs.OpSchema.FormalParameter("x", "T", param_option=option, is_homogeneous=False, min_arity=0)
    results = defs.OpSchema.FormalParameter("y", "T", param_option=option, is_homogeneous=False, min_arity=0)
    types = [("T", ["tensor(float)"], "")]
    functions = {name: infer_row(parse(line)) for name, line in SHAPES.items()}
    functions |= dict.fromkeys(_MATMULS, infer_matmul) | {"Slice": infer_slice}
    for name, function in functions.items():
        schema = defs.OpSchema(_PREFIX + name, DOMAIN, 1, inputs=[operands], outputs=[results], type_constraints=types)
        schema.set_type_and_shape_inference_function(function)
        defs.register_schema(schema)


@cache
def _is_standard(op_type: str, opset: int) -> bool:
    return defs.has(op_type, opset, "")


@cache
def _attributes(op_type: str) -> frozenset[str]:
    return frozenset(defs.get_schema(op_type).attributes)


def _like(node: onnx.NodeProto, like: Like) -> list[onnx.NodeProto]:
    """Return the standard node that ``like`` names, with moves to channels-first and a cast around it if due."""
    positions = range(like.operands[0], len(node.input), like.every) if like.every else like.operands
    inputs = [node.input[position] for position in positions if position < len(node.input)]
    output = node.output[0]
    last = any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)
    moved = like.nhwc or ((0,) if last else ())
    nodes: list[onnx.NodeProto] = []
    for position in moved:
        nodes.append(_node("Transpose", [inputs[position]], f"{output}.nchw{position}", perm=[0, 3, 1, 2]))
        inputs[position] = nodes[-1].output[0]
    element = "float" if like.scaled and not any(node.input[like.scaled :]) else like.element
    result = f"{output}.{like.op_type}" if moved or element else output
    attributes = [attribute for attribute in node.attribute if attribute.name in _attributes(like.op_type)]
    nodes.append(_node(like.op_type, inputs, result))
    nodes[-1].attribute.extend(attributes)
    if moved:
        nodes.append(_node("Transpose", [result], output, perm=[0, 2, 3, 1]))
    elif element:
        nodes.append(_node("Cast", [result], output, to=ELEMENTS[element]))
    return nodes


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, [output], **attributes)
