"""Sessions of ONNX Runtime, from every form of a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
import onnxruntime

from graphprune.errors import ModelError, UsageError
from graphprune.text import first_line

__all__ = [
    "LEVELS",
    "Model",
    "Provider",
    "check_level",
    "save_optimized",
    "session",
    "stored_bytes",
    "stored_size",
]

Model: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
Provider: TypeAlias = str | tuple[str, Mapping[str, Any]]

PROTOBUF_LIMIT = 2**31 - 2**20  # a protobuf message ends at 2 GiB; leave room for the graph
SILENT = 4  # log severity: errors come back as exceptions, so nothing needs to be printed as well


LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""How far ONNX Runtime rewrites a graph; ``all`` adds memory layouts that fit the processor at hand."""


def check_level(level: str) -> None:
    """Refuse what is no graph level with a :class:`UsageError`."""
    if level not in LEVELS:
        raise UsageError(f"there is no graph level '{level}'; there are: {', '.join(LEVELS)}")


def session(
    model: Model, providers: Sequence[Provider] | None = None, threads: int | None = None, level: str = "all"
) -> onnxruntime.InferenceSession:
    """An inference session; ``providers`` default to the CPU, ``threads`` to one per core; ``level`` is in LEVELS.

    Raises :class:`ModelError` where ONNX Runtime does not take the model, :class:`UsageError` where this build of it
    lacks a provider.
    """
    chosen = list(providers) if providers is not None else ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    for provider in chosen:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise UsageError(f"this ONNX Runtime has no execution provider '{name}'; it has: {', '.join(available)}")
    return _open(model, _options(threads, level), chosen)


def save_optimized(model: Model, path: Path, level: str) -> None:
    """Write what ONNX Runtime makes of ``model`` on the CPU, with external data beside it where it is large.

    A ``path`` that ends in ``.ort`` gets that format. Layouts of the processor at hand are left out at every level.

    Raises :class:`ModelError` where ONNX Runtime does not take the model.
    """
    options = _options(1, level)
    options.optimized_model_filepath = os.fspath(path)
    if path.suffix == ".ort":
        options.add_session_config_entry("session.save_model_format", "ORT")
    elif stored_size(model) >= PROTOBUF_LIMIT // 2:  # constants that are folded need room too
        entry = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{entry}_file_name", f"{path.stem}.data")
        options.add_session_config_entry(f"{entry}_min_size_in_bytes", "1024")
    _open(model, options, ["CPUExecutionProvider"], {"NchwcTransformer"})


def stored_size(model: Model) -> int:
    """The bytes of a model's tensors, or of its file where it is in one."""
    if isinstance(model, bytes):
        return len(model)
    if isinstance(model, onnx.ModelProto):
        return model.ByteSize()
    if isinstance(model, ir.Model):
        return sum(tensor.nbytes for tensor in _tensors(model))
    return stored_bytes(model)


def stored_bytes(path: str | os.PathLike[str]) -> int:
    """The size of an ONNX file and of the external tensors that it refers to."""
    if Path(path).suffix == ".ort":
        return os.path.getsize(path)
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf, I/O and onnx_ir's own errors share no base class
        raise ModelError(f"{os.fspath(path)}: not a readable ONNX model ({first_line(error)})") from error
    tensors = {
        (os.fspath(tensor.path), tensor.offset or 0): tensor.length or tensor.nbytes
        for tensor in _tensors(model)
        if isinstance(tensor, ir.ExternalTensor)
    }
    return os.path.getsize(path) + sum(tensors.values())


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    return [
        value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    ]


def _options(threads: int | None, level: str) -> onnxruntime.SessionOptions:
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    check_level(level)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def _open(
    model: Model, options: onnxruntime.SessionOptions, chosen: Sequence[Provider], without: Collection[str] = ()
) -> onnxruntime.InferenceSession:
    if isinstance(model, ir.Model):
        return _in_memory_session(model, options, chosen, without)
    if isinstance(model, onnx.ModelProto):
        return _create(model.SerializeToString(), model.graph.name or "the model", options, chosen, without)
    if isinstance(model, bytes):
        return _create(model, "the model", options, chosen, without)
    path = os.fspath(model)
    if not os.path.isfile(path):
        raise ModelError(f"{path}: no such file")
    return _create(path, path, options, chosen, without)


def _in_memory_session(
    model: ir.Model, options: onnxruntime.SessionOptions, providers: Sequence[Provider], without: Collection[str]
) -> onnxruntime.InferenceSession:
    name = model.graph.name or "the model"
    tensors = _tensors(model)
    folders = {os.fspath(tensor.base_dir) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    inside = sum(tensor.nbytes for tensor in tensors if not isinstance(tensor, ir.ExternalTensor))
    if len(folders) <= 1 and inside < PROTOBUF_LIMIT:
        for folder in folders:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        return _create(ir.to_proto(model).SerializeToString(), name, options, providers, without)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return _create(os.fspath(path), name, options, providers, without)


def _create(
    source: str | bytes,
    name: str,
    options: onnxruntime.SessionOptions,
    providers: Sequence[Provider],
    without: Collection[str],
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=list(providers), disabled_optimizers=list(without)
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ModelError(f"{name}: ONNX Runtime does not load it: {first_line(error)}") from error
