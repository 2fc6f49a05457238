"""A decoder larger than memory, its weights streamed to external files as they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from graphprune.models.reference.builder import Array, GraphBuilder, Value
from graphprune.models.reference.llama import LlamaSizes, build_llama

__all__ = ["write_big_llama"]

BLOCK_BYTES = 16 << 20
SHARD_BYTES = 1 << 30
ALIGNMENT = 4096


@dataclass
class StreamingBuilder(GraphBuilder):
    """A graph builder whose large weights go straight to ``folder``, tiled from one random block."""

    folder: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._block = self.rng.standard_normal(BLOCK_BYTES // 4, np.float32)
        self._shard = 0
        self._offset = 0

    def weight(self, *shape: int, scale: float | None = None, name: str = "weight") -> Value:
        """Add a weight; one of 64 kB or more is written to the current shard."""
        count = math.prod(shape)
        itemsize = np.dtype(self.dtype).itemsize
        if count * itemsize < 1 << 16:
            return super().weight(*shape, scale=scale, name=name)
        if scale is None:
            scale = math.sqrt(1.5 / max(1, math.prod(shape[1:])))
        if self._offset > SHARD_BYTES:
            self._shard, self._offset = self._shard + 1, 0
        full = self.fresh(name)
        self._reference(full, shape, self._write(count, (self._block * np.float32(scale)).astype(self.dtype)))
        return Value(full, shape)

    def _write(self, count: int, block: Array) -> int:
        """Append ``count`` elements, starting at a random place of ``block``; return the byte length."""
        start = int(self.rng.integers(0, block.size))
        path = self.folder / self._location
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(self._offset)
            left = count
            while left:
                piece = block[start : start + left]
                file.write(piece.data)
                left -= piece.size
                start = 0
        return count * block.itemsize

    def _reference(self, name: str, shape: tuple[int, ...], length: int) -> None:
        tensor = TensorProto(name=name, dims=shape, data_type=self.elem_type, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self._location), ("offset", self._offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        self._offset += -(-length // ALIGNMENT) * ALIGNMENT

    @property
    def _location(self) -> str:
        return f"weights-{self._shard:05d}.bin"


def write_big_llama(path: str | Path, gigabytes: float, *, hidden: int = 2048, seed: int = 0) -> Path:
    """Write a float32 Llama-like decoder with at least ``gigabytes`` GB (10^9 bytes) of external weights.

    The weights lie beside ``path`` in shards of about 1 GB; no more than a block of 16 MB is held at a time. Returns
    ``path``.
    """
    path = Path(path)
    heads = max(1, hidden // 128)
    base = LlamaSizes(0, hidden, heads, max(1, heads // 4), 11 * hidden // 4, 16000, 2048)
    kv = 2 * base.groups * base.head_width * hidden
    layer_bytes = 4 * (2 * hidden * hidden + kv + 3 * hidden * base.inner)
    fixed_bytes = 4 * 2 * base.vocabulary * hidden
    layers = max(1, math.ceil((gigabytes * 1e9 - fixed_bytes) / layer_bytes))
    path.parent.mkdir(parents=True, exist_ok=True)
    builder = StreamingBuilder(name="big_llama", seed=seed, folder=path.parent)
    onnx.save_model(build_llama(builder, base, layers), path)
    return path
