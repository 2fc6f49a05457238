"""The targets of ONNX Runtime: execution providers, and which package brings each."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.backends.base import Target
from graphprune.errors import UsageError

__all__ = ["TARGETS", "ProviderInfo", "provider_of", "targets_of"]


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """An execution provider: its name, what to do to have it, and the device that holds its tensors.

    ``device`` is None where inputs are read from the memory of the CPU; else timing binds them on the device first.
    """

    provider: str
    remedy: str
    device: str | None = None


TARGETS = {
    "cpu": ProviderInfo("CPUExecutionProvider", "pip install onnxruntime"),
    "cuda": ProviderInfo("CUDAExecutionProvider", "pip install onnxruntime-gpu (instead of onnxruntime)", "cuda"),
    "tensorrt": ProviderInfo(
        "TensorrtExecutionProvider", "pip install onnxruntime-gpu tensorrt (instead of onnxruntime)", "cuda"
    ),
    "openvino": ProviderInfo("OpenVINOExecutionProvider", "pip install onnxruntime-openvino (instead of onnxruntime)"),
    "coreml": ProviderInfo("CoreMLExecutionProvider", "pip install onnxruntime on macOS"),
    "directml": ProviderInfo(
        "DmlExecutionProvider", "pip install onnxruntime-directml on Windows (instead of onnxruntime)"
    ),
    "xnnpack": ProviderInfo("XnnpackExecutionProvider", "build ONNX Runtime with --use_xnnpack"),
    "qnn": ProviderInfo("QNNExecutionProvider", "pip install onnxruntime-qnn (instead of onnxruntime)"),
}


def targets_of(available: list[str]) -> tuple[Target, ...]:
    """All targets, and what those need whose execution provider is not ``available``."""
    return tuple(
        Target(name, info.provider in available, None if info.provider in available else info.remedy)
        for name, info in TARGETS.items()
    )


def provider_of(target: str, available: list[str]) -> ProviderInfo:
    """The execution provider of a target.

    Raises:
        UsageError: there is no such target, or its execution provider is not ``available``.
    """
    info = TARGETS.get(target)
    if info is None:
        raise UsageError(f"ONNX Runtime has no target '{target}'; it has: {', '.join(TARGETS)}")
    if info.provider not in available:
        raise UsageError(f"this ONNX Runtime has no {info.provider}: {info.remedy}")
    return info
