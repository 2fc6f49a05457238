"""ONNX Runtime: sessions, and latency measured side by side."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from graphprune.errors import ModelError, UsageError
from graphprune.sample_inputs import Inputs, input_specs, inputs_that_run

__all__ = ["Latency", "Model", "Provider", "compare", "session", "stored_bytes"]

Model: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
Provider: TypeAlias = str | tuple[str, Mapping[str, Any]]

PROTOBUF_LIMIT = 2**31 - 2**20  # a protobuf message ends at 2 GiB; leave room for the graph
SILENT = 4  # log severity: errors come back as exceptions, so nothing needs to be printed as well


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one inference took, in seconds, over ``runs`` runs.

    ``spread`` is the distance between the quartiles; ``bytes`` is what the model takes on disk, external data included.
    """

    model: str
    median: float
    spread: float
    minimum: float
    runs: int
    bytes: int


def session(
    model: Model, providers: Sequence[Provider] | None = None, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """An inference session; ``providers`` default to the CPU, ``threads`` to one per core.

    Raises :class:`ModelError` where ONNX Runtime does not take the model, :class:`UsageError` where this build of it
    lacks a provider.
    """
    chosen = list(providers) if providers is not None else ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    for provider in chosen:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise UsageError(f"this ONNX Runtime has no execution provider '{name}'; it has: {', '.join(available)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if isinstance(model, ir.Model):
        return _in_memory_session(model, options, chosen)
    if isinstance(model, onnx.ModelProto):
        return _create(model.SerializeToString(), model.graph.name or "the model", options, chosen)
    if isinstance(model, bytes):
        return _create(model, "the model", options, chosen)
    path = os.fspath(model)
    if not os.path.isfile(path):
        raise ModelError(f"{path}: no such file")
    return _create(path, path, options, chosen)


def compare(
    models: Sequence[str | os.PathLike[str]],
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    warmup: int = 5,
    repeats: int = 30,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> tuple[Latency, ...]:
    """The latency of each model on the same inputs, measured in turns so that a busy machine slows all of them alike.

    Without ``inputs`` random ones are made for the first model, and given to the others where they fit. ``dims`` sets
    symbolic dimensions by name. Raises :class:`ModelError` where a model does not load or run.
    """
    if repeats < 1 or warmup < 0:
        raise UsageError(f"a measurement needs at least one run and no negative warm-up, not {repeats} and {warmup}")
    sessions = [session(path, providers, threads) for path in models]
    feeds: list[Inputs] = []
    for path, runnable in zip(models, sessions, strict=True):
        feeds.append(
            _feed(os.fspath(path), runnable, inputs or (feeds[0] if feeds else None), inputs is None, dims, seed)
        )
    for _ in range(warmup):
        for runnable, feed in zip(sessions, feeds, strict=True):
            runnable.run(None, feed)
    times = np.empty((repeats, len(sessions)))
    for turn in range(repeats):
        order = range(len(sessions)) if turn % 2 == 0 else reversed(range(len(sessions)))
        for index in order:
            start = time.perf_counter()
            sessions[index].run(None, feeds[index])
            times[turn, index] = time.perf_counter() - start
    low, median, high = np.percentile(times, [25, 50, 75], axis=0)
    return tuple(
        Latency(
            model=os.fspath(path),
            median=float(median[index]),
            spread=float(high[index] - low[index]),
            minimum=float(times[:, index].min()),
            runs=repeats,
            bytes=stored_bytes(path),
        )
        for index, path in enumerate(models)
    )


def stored_bytes(path: str | os.PathLike[str]) -> int:
    """The size of an ONNX file and of the external tensors that it refers to."""
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf, I/O and onnx_ir's own errors share no base class
        raise ModelError(f"{os.fspath(path)}: not a readable ONNX model ({_first_line(error)})") from error
    tensors = {
        (os.fspath(tensor.path), tensor.offset or 0): tensor.length or tensor.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
    }
    return os.path.getsize(path) + sum(tensors.values())


def _in_memory_session(
    model: ir.Model, options: onnxruntime.SessionOptions, providers: Sequence[Provider]
) -> onnxruntime.InferenceSession:
    name = model.graph.name or "the model"
    tensors = [
        v.const_value for graph in model.graphs() for v in graph.initializers.values() if v.const_value is not None
    ]
    folders = {os.fspath(tensor.base_dir) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    inside = sum(tensor.nbytes for tensor in tensors if not isinstance(tensor, ir.ExternalTensor))
    if len(folders) <= 1 and inside < PROTOBUF_LIMIT:
        for folder in folders:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        return _create(ir.to_proto(model).SerializeToString(), name, options, providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return _create(os.fspath(path), name, options, providers)


def _create(
    source: str | bytes, name: str, options: onnxruntime.SessionOptions, providers: Sequence[Provider]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ModelError(f"{name}: ONNX Runtime does not load it: {_first_line(error)}") from error


def _feed(
    name: str,
    runnable: onnxruntime.InferenceSession,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
    replaceable: bool,
    dims: Mapping[str, int] | None,
    seed: int,
) -> Inputs:
    """``inputs`` if the session runs on them, else random ones where they may be replaced."""
    if inputs is not None:
        try:
            runnable.run(None, dict(inputs))
        except Exception as error:  # ONNX Runtime's errors share no base class
            if not replaceable:
                raise ModelError(f"{name}: does not run on the given inputs: {_first_line(error)}") from error
        else:
            return dict(inputs)
    return inputs_that_run(lambda feed: runnable.run(None, feed), input_specs(runnable), seed, dims)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
