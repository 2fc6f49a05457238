"""Open an ONNX model from a file or from memory, and refuse what is not one in a single clear line.

External data stays on disk: the tensors of the returned model are lazy, so a model larger than memory opens in the
time that its graph takes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphprune.frontends.messages import model_error, root_cause
from graphprune.frontends.onnx_check import check_model
from graphprune.frontends.onnx_data import byte_size, check_extent, graphs, locate, tensors
from graphprune.frontends.onnx_detach import detach
from graphprune.frontends.onnx_ranks import check_ranks

__all__ = ["EXTERNAL", "MAX_PROTOBUF", "SOURCES", "load"]

SOURCES = "graphprune.sources"
"""Key in `model.graph.meta`: the resolved paths of all files that a model is read from, which must not be replaced."""

EXTERNAL = "graphprune.external"
"""Key in `model.graph.meta`: whether the model came with external data."""

MAX_PROTOBUF = 2**31 - 1
"""The most bytes that one protobuf file can hold."""

SIGNATURES = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to fetch the model itself"),
    (0, b"PK\x03\x04", "a zip archive or PyTorch checkpoint", "export the network with torch.onnx.export"),
    (0, b"\x1f\x8b", "gzip-compressed", "decompress it first"),
    (0, b"\x80\x02", "a Python pickle", "export the network with torch.onnx.export"),
    (0, b"\x89HDF", "an HDF5 file", "convert the network with tf2onnx"),
    (4, b"ORTM", "in ONNX Runtime's .ort format", "pass the .onnx file that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx"),
)


def load(source: str | os.PathLike[str] | onnx.ModelProto | ir.Model) -> ir.Model:
    """Return a checked model that the caller may change; the source is never changed and external data is not read.

    Args:
        source: a path, a decoded `onnx.ModelProto`, or an `onnx_ir.Model` (cloned; its tensors are shared).

    Raises:
        ModelError: the source cannot be read or is not a valid ONNX model; one line that names file, node or tensor.
    """
    if isinstance(source, ir.Model):
        return _from_ir(source)
    if isinstance(source, onnx.ModelProto):
        return _from_memory(source)
    path = Path(source)
    proto = _parse(path)
    folder = Path(os.path.dirname(os.path.abspath(path)))
    check_model(proto, path.name, folder)
    model = _decode(proto, path.name)
    for graph in graphs(model):
        ir.external_data.set_base_dir(graph, folder)
    return _note_sources(model, path)


def _note_sources(model: ir.Model, *files: Path) -> ir.Model:
    """Write down which files a model is read from, for the writer."""
    external = [os.path.realpath(tensor.path) for _, tensor in tensors(model) if isinstance(tensor, ir.ExternalTensor)]
    earlier = model.graph.meta.get(SOURCES, frozenset())
    model.graph.meta[SOURCES] = earlier | {*external, *map(os.path.realpath, files)}
    model.graph.meta[EXTERNAL] = bool(external) or bool(model.graph.meta.get(EXTERNAL))
    return model


def _parse(path: Path) -> onnx.ModelProto:
    """Return the message in a file."""
    where = str(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise model_error(where, "it is a folder", "pass the .onnx file in it")
        if not stat.S_ISREG(status.st_mode):
            raise model_error(where, "it is not a plain file", "save the model to disk first")
        if not status.st_size:
            raise model_error(where, "the file is empty", "fetch or export it again")
        if status.st_size > MAX_PROTOBUF:
            raise model_error(
                where,
                f"its {status.st_size} bytes are more than a protobuf file can hold (2 GiB)",
                "save the model with external data",
            )
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise model_error(where, "there is no such file", "check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise model_error(where, f"the file cannot be read ({reason})", "check its path and permissions") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise model_error(where, *_sniff(path, content[:512])) from error
    if not proto.HasField("graph"):
        raise model_error(where, *_sniff(path, content[:512]))
    return proto


def _sniff(path: Path, head: bytes) -> tuple[str, str]:
    """Return what a file that is no ONNX protobuf seems to be, and what to do about it."""
    for offset, magic, what, remedy in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return f"it is {what}, not an ONNX model", remedy
    if path.suffix == ".safetensors":
        return "it is a safetensors file, weights without a graph", "export the network with torch.onnx.export"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    if all(letter.isprintable() or letter in "\t\r\n" for letter in text):
        return "it is a text file, not a binary ONNX model", "convert it with onnx.load(path, format=...) and onnx.save"
    return "it is not an ONNX model, or it is truncated or damaged", "fetch or export it again"


def _decode(proto: onnx.ModelProto, where: str) -> ir.Model:
    """Return the model that a checked message spells, its nodes in order and its opsets under their usual names."""
    try:
        model = ir.from_proto(proto)
        detach(model)
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            graph.sort()
    except Exception as error:
        # The decoder raises whatever its fields trip over; only decoding is guarded this widely.
        raise model_error(where, f"the graph cannot be decoded ({root_cause(error)})", "export it again") from error
    if "ai.onnx" in model.opset_imports:
        model.opset_imports[""] = model.opset_imports.pop("ai.onnx")
    for graph in graphs(model):
        for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            _forget_negative(value)
    check_ranks(model, where)
    return model


def _forget_negative(value: ir.Value) -> None:
    """Make the negative sizes that some exporters write for *unknown* unknown, as ONNX Runtime does."""
    shape = value.shape
    if shape is not None and any(isinstance(size, int) and size < 0 for size in shape):
        value.shape = ir.Shape([None if isinstance(size, int) and size < 0 else size for size in shape])


def _from_memory(source: onnx.ModelProto) -> ir.Model:
    """Return the model that a message in memory spells; it is copied, since tensors keep referring to it."""
    where = "the ModelProto"
    check_model(source, where, None)
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    model = _decode(copy, where)
    if any(isinstance(tensor, ir.ExternalTensor) for _, tensor in tensors(model)):
        raise model_error(where, "it refers to data files but not to their folder", "pass the path of the .onnx file")
    return _note_sources(model)


def _from_ir(source: ir.Model) -> ir.Model:
    """Return a clone of a model, checked as a message in which every tensor is replaced by its type and shape."""
    where = "the model"
    try:
        model, outline = source.clone(), source.clone()
        for graph in graphs(outline):
            for name, value in graph.initializers.items():
                tensor = value.const_value
                if tensor is not None and tensor.dtype != ir.DataType.STRING:
                    shape = ir.Shape(tensor.shape.numpy())
                    value.const_value = ir.ExternalTensor("-", None, None, tensor.dtype, shape=shape, name=name)
        proto = ir.to_proto(outline)
    except Exception as error:
        # Cloning and encoding raise whatever a model that was put together wrongly makes them trip over.
        raise model_error(where, f"it is inconsistent ({root_cause(error)})", "sort it and check its values") from error
    check_model(proto, where, None)
    for what, tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            named = f"{where}: {what}"
            path = locate(tensor.base_dir or os.getcwd(), os.fspath(tensor.location), named)
            needed = byte_size(tensor.dtype, list(tensor.shape.numpy()))
            check_extent(path, tensor.offset, tensor.length, needed, named)
    check_ranks(model, where)
    return _note_sources(model)
