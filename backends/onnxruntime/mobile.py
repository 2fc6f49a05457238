"""The ``.ort`` format of ONNX Runtime's mobile and reduced builds, made by ONNX Runtime's own tool."""

from __future__ import annotations

from pathlib import Path

from graphprune.backends.onnxruntime.quiet import quiet
from graphprune.backends.onnxruntime.sessions import PROTOBUF_LIMIT, first_line, stored_bytes
from graphprune.errors import ModelError, UsageError

__all__ = ["CONFIG", "to_ort_format"]

CONFIG = "required_operators_and_types.config"
"""What a build of ONNX Runtime that holds nothing else is configured with (``--include_ops_by_config``)."""


def to_ort_format(model: Path, folder: Path) -> Path:
    """Write ``model.ort`` and CONFIG to ``folder``; returns the former.

    It is optimised for all processors alike: layouts that fit the processor at hand are left out.

    Raises:
        ModelError: ONNX Runtime cannot convert the model.
        UsageError: this ONNX Runtime comes without the tool, or the model is too large for the format.
    """
    if stored_bytes(model) > PROTOBUF_LIMIT:
        raise UsageError(f"{model.name}: too large for the .ort format, which ends at 2 GiB; store it as onnx")
    try:
        with quiet():
            from onnxruntime.tools import convert_onnx_models_to_ort as tool
    except ImportError as error:
        raise UsageError(
            f"the .ort format needs onnxruntime's tools ({first_line(error)}): pip install -U onnxruntime flatbuffers"
        ) from error
    try:
        with quiet():
            tool.convert_onnx_models_to_ort(
                model,
                output_dir=folder,
                optimization_styles=[tool.OptimizationStyle.Fixed],
                enable_type_reduction=True,
            )
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ModelError(f"{model.name}: cannot be converted to the .ort format: {first_line(error)}") from error
    (made,) = folder.glob("*.ort")
    (config,) = folder.glob("*.config")
    config.replace(folder / CONFIG)
    return made.replace(folder / "model.ort")
