"""The scales of normalisations: which parameters they are, on either host."""

from __future__ import annotations

from graphprune.rules.call import Call
from graphprune.structure import Structure

__all__ = ["scale_of", "scales"]

_AT: dict[str, int] = {
    **dict.fromkeys(
        (
            "onnx.BatchNormalization",
            "onnx.InstanceNormalization",
            "onnx.LayerNormalization",
            "onnx.RMSNormalization",
            "onnx.SimplifiedLayerNormalization",
            "onnx.GroupNormalization",
            "com.microsoft.LayerNormalization",
            "com.microsoft.SimplifiedLayerNormalization",
            "com.microsoft.GroupNorm",
            "com.microsoft.SkipGroupNorm",
            "com.microsoft.GatedRMSNorm",
            "aten.batch_norm",
            "aten.native_batch_norm",
            "aten._batch_norm_impl_index",
            "aten._native_batch_norm_legit",
            "aten._native_batch_norm_legit_functional",
            "aten._native_batch_norm_legit_no_training",
            "aten._batch_norm_with_update",
            "aten._batch_norm_with_update_functional",
            "aten._batch_norm_no_update",
            "aten.cudnn_batch_norm",
            "aten.miopen_batch_norm",
            "aten.instance_norm",
            "aten.group_norm",
            "aten.native_group_norm",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "com.microsoft.SkipLayerNormalization",
            "com.microsoft.SkipSimplifiedLayerNormalization",
            "aten.layer_norm",
            "aten.native_layer_norm",
            "aten.rms_norm",
            "aten._fused_rms_norm",
        ),
        2,
    ),
    "com.microsoft.EmbedLayerNormalization": 5,
}
"""For each operator the number of the operand that scales what it has normalised."""


def scales(structure: Structure) -> list[str]:
    """Names of the parameters that scale what a normalisation gives, in reading order, each once."""
    found = (scale_of(call, structure) for call in structure.calls)
    return list(dict.fromkeys(name for name in found if name is not None))


def scale_of(call: Call, structure: Structure) -> str | None:
    """Name of the parameter by which a call scales what it has normalised."""
    number = _AT.get(call.op)
    operand = None if number is None else call.operand(number)
    known = operand is not None and operand.axes is not None and operand.name in structure.parameters
    return operand.name if operand is not None and known else None
