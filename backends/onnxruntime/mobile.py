"""The ``.ort`` format of ONNX Runtime's mobile and reduced builds, and what such a build must hold."""

from __future__ import annotations

from pathlib import Path

from graphprune.backends.onnxruntime.sessions import PROTOBUF_LIMIT, save_optimized, stored_bytes
from graphprune.backends.quiet import quiet
from graphprune.errors import UsageError
from graphprune.text import first_line

__all__ = ["CONFIG", "to_ort_format"]

CONFIG = "required_operators_and_types.config"
"""What a build of ONNX Runtime that holds nothing else is configured with (``--include_ops_by_config``)."""


def to_ort_format(model: Path, folder: Path) -> Path:
    """Write ``model.ort`` and CONFIG to ``folder``; returns the former.

    It is optimised for all processors alike, as ONNX Runtime's own ``convert_onnx_models_to_ort`` does: layouts that
    fit the processor at hand are left out.

    Raises:
        ModelError: ONNX Runtime cannot convert the model.
        UsageError: this ONNX Runtime comes without its tools, or the model is too large for the format.
    """
    if stored_bytes(model) > PROTOBUF_LIMIT:
        raise UsageError(f"{model.name}: too large for the .ort format, which ends at 2 GiB; store it as onnx")
    path = folder / "model.ort"
    save_optimized(model, path, "all")
    with quiet():
        try:
            from onnxruntime.tools.ort_format_model import create_config_from_models
        except ImportError as error:
            raise UsageError(
                f"the .ort format needs onnxruntime's tools ({first_line(error)}): pip install onnxruntime flatbuffers"
            ) from error
        create_config_from_models([path], folder / CONFIG, True)
    return path
