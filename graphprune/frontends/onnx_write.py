"""Write an ONNX model, its weights streamed one tensor at a time, so that neither memory nor 2 GB is a limit."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import onnx_ir as ir
from google.protobuf.message import EncodeError

from graphprune.errors import UsageError
from graphprune.frontends.atomic import AtomicFiles
from graphprune.frontends.messages import model_error, root_cause
from graphprune.frontends.onnx_data import byte_size, graphs, tensors
from graphprune.frontends.onnx_file import EXTERNAL, MAX_PROTOBUF, SOURCES

__all__ = ["save"]

EXTERNAL_BYTES = 1024
"""Tensors of at least this size go to a data file; smaller ones stay in the graph, where shapes are inferred from."""

ALIGNMENT = 64
"""Start of each tensor in a data file, so that runtimes may map it and use vector loads."""

GRAPH_MARGIN = 1 << 26
"""Bytes left for the graph itself when deciding whether all weights fit into one protobuf file."""


@dataclass(frozen=True, slots=True)
class Initializer:
    """A value and the tensor stored in it."""

    tensor: ir.TensorProtocol
    value: ir.Value

    def put(self, tensor: ir.ExternalTensor, undo: contextlib.ExitStack) -> None:
        """Store another tensor until `undo` is closed."""
        undo.callback(setattr, self.value, "const_value", self.tensor)
        self.value.const_value = tensor


@dataclass(frozen=True, slots=True)
class NodeAttribute:
    """An attribute of a node and the tensor stored in it."""

    tensor: ir.TensorProtocol
    node: ir.Node
    attribute: ir.Attr

    def put(self, tensor: ir.ExternalTensor, undo: contextlib.ExitStack) -> None:
        """Store another tensor until `undo` is closed."""
        name = self.attribute.name
        undo.callback(self.node.attributes.__setitem__, name, self.attribute)
        self.node.attributes[name] = ir.AttrTensor(name, tensor, doc_string=self.attribute.doc_string)


Place = Initializer | NodeAttribute


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external: bool | None = None,
    shard_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a model completely or not at all and return the number of bytes written; the model is not changed.

    Args:
        model: its tensors may be lazy; each is evaluated once, written and dropped.
        path: the file to write; data files `<name>.data` or `<name>-00001-of-0000N.data` are put beside it.
        external: whether weights go to data files; by default when the model came with some or exceeds 2 GB.
        shard_bytes: start another data file before one grows beyond this; a larger tensor gets a file of its own.
        progress: called with the bytes of external weights written and to be written, after each tensor.

    Raises:
        UsageError: an output would replace a file that the model is read from, or the options contradict each other.
        ModelError: the folder cannot be written, the disk is full, or the model cannot be encoded.
    """
    if "\0" in os.fspath(path):
        raise UsageError("the output path contains a null character; name a file to write")
    target = Path(os.path.abspath(path))
    stored = [tensor for _, tensor in tensors(model)]
    sources = model.graph.meta.get(SOURCES, frozenset()) | {
        os.path.realpath(tensor.path) for tensor in stored if isinstance(tensor, ir.ExternalTensor)
    }
    total = sum(map(_bytes, stored))
    limit = MAX_PROTOBUF - GRAPH_MARGIN
    if external is None:
        external = bool(model.graph.meta.get(EXTERNAL)) or total > limit
        external = external or any(isinstance(tensor, ir.ExternalTensor) for tensor in stored)
    if not external and total > limit:
        raise UsageError(f"{target.name}: {total} bytes of weights exceed one protobuf file; allow external data")
    if shard_bytes is not None and shard_bytes < 1:
        raise UsageError(f"data files of {shard_bytes} bytes cannot be; ask for at least 1")
    places = list(_places(model)) if external else []
    shards = _shards((place.tensor for place in places), shard_bytes)
    names = [_data_name(target.name, index, len(shards)) for index in range(1, len(shards) + 1)]
    _check_targets([target, *(target.with_name(name) for name in names)], sources)
    try:
        free = shutil.disk_usage(target.parent).free
        if free < total:
            raise model_error(str(target), f"it takes {total} bytes but the disk has {free} left", "free some space")
        with AtomicFiles(target.parent) as files:
            moved = _write_shards(files, dict(zip(names, shards, strict=True)), progress)
            with contextlib.ExitStack() as undo:
                for place in places:
                    place.put(moved[id(place.tensor)], undo)
                encoded = _encode(model, target)
            files.open(target.name).write(encoded)
            return files.commit()
    except OSError as error:
        reason = error.strerror or str(error)
        raise model_error(str(target), f"it cannot be written ({reason})", "write to a folder with room") from error


def _bytes(tensor: ir.TensorProtocol) -> int:
    if tensor.dtype == ir.DataType.STRING:
        return sum(map(len, tensor.numpy().reshape(-1)))
    return byte_size(tensor.dtype, list(tensor.shape.numpy()))


def _places(model: ir.Model) -> Iterator[Place]:
    """Yield what goes to data files: big initializers, and attributes that were external already."""
    for graph in graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            if _bytes(tensor) >= EXTERNAL_BYTES or isinstance(tensor, ir.ExternalTensor):
                yield Initializer(tensor, value)
        for node in graph:
            for attribute in node.attributes.values():
                if isinstance(attribute.value, ir.ExternalTensor):
                    yield NodeAttribute(attribute.value, node, attribute)


def _shards(stored: Iterable[ir.TensorProtocol], shard_bytes: int | None) -> list[list[ir.TensorProtocol]]:
    """Deal tensors out to data files in order; one that several values share is stored once."""
    shards: list[list[ir.TensorProtocol]] = []
    size = 0
    for tensor in {id(tensor): tensor for tensor in stored}.values():
        start = -size % ALIGNMENT + size
        if not shards or (shard_bytes is not None and start + _bytes(tensor) > shard_bytes):
            shards.append([])
            start = 0
        shards[-1].append(tensor)
        size = start + _bytes(tensor)
    return shards


def _data_name(name: str, index: int, count: int) -> str:
    return f"{name}.data" if count == 1 else f"{name}-{index:05d}-of-{count:05d}.data"


def _check_targets(targets: Sequence[Path], sources: frozenset[str]) -> None:
    for target in targets:
        if os.path.realpath(target) in sources:
            raise UsageError(f"{target}: the model is read from this file; write to another path")
        try:
            mode = os.stat(target).st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise UsageError(f"{target}: this is a folder or device, not a file; name a file to write")


def _write_shards(
    files: AtomicFiles, shards: dict[str, list[ir.TensorProtocol]], progress: Callable[[int, int], None] | None
) -> dict[int, ir.ExternalTensor]:
    """Write the data files; returns where each tensor went, by its identity."""
    moved: dict[int, ir.ExternalTensor] = {}
    total = sum(_bytes(tensor) for shard in shards.values() for tensor in shard)
    done = 0
    for name, shard in shards.items():
        file = files.open(name)
        for tensor in shard:
            file.write(bytes(-file.tell() % ALIGNMENT))
            start, length = file.tell(), _bytes(tensor)
            _write_tensor(tensor, file)
            if file.tell() - start != length:
                what = f"tensor '{tensor.name}' does not have the {length} bytes of its shape and type"
                raise model_error(name, what, "check how it was made")
            moved[id(tensor)] = ir.ExternalTensor(
                name,
                start,
                length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name or "",
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
            done += length
            if progress is not None:
                progress(done, total)
    return moved


def _write_tensor(tensor: ir.TensorProtocol, file: IO[bytes]) -> None:
    """Write packed little-endian bytes; straight from file to file or from the array where the tensor can do so."""
    stream = getattr(tensor, "tofile", None)
    if stream is None:
        file.write(tensor.tobytes())
    else:
        stream(file)


def _encode(model: ir.Model, target: Path) -> bytes:
    try:
        return ir.to_proto(model).SerializeToString()
    except (EncodeError, ir.serde.SerdeError, TypeError, ValueError) as error:
        raise model_error(
            str(target), f"it cannot be encoded ({root_cause(error)})", "check the model's values"
        ) from error
