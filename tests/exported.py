"""ONNX exports of modules, by both of PyTorch's exporters."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx

__all__ = ["EXPORTERS", "export"]

EXPORTERS = ("dynamo", "unoptimized", "legacy", "unfolded")
"""The exporter from ``torch.export`` programs with and without its optimizer, and the one that traces, with and without
folding constants (and BatchNorm)."""


def export(module: Any, args: tuple[Any, ...], exporter: str = "dynamo", **options: Any) -> onnx.ModelProto:
    """Export a module; the model is not written to disk."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter in ("dynamo", "unoptimized"):
            optimize = exporter == "dynamo"
            program = torch.onnx.export(module, args, dynamo=True, optimize=optimize, verbose=False, **options)
            return program.model_proto
        file = io.BytesIO()
        fold = exporter == "legacy"
        torch.onnx.export(module, args, file, dynamo=False, do_constant_folding=fold, opset_version=17, **options)
    return onnx.load_from_string(file.getvalue())
