"""Quantised weights as the numbers they stand for, block by block: ``scale * (q - zero_point)``.

Scales belong to the whole tensor, to positions of one dimension, or to blocks of positions; integers of 2 or 4 bits may
be packed into bytes. A weight that no operator declares as quantised is read as it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.rules.call import Call, Operand
from graphprune.score.base import Block, Weights
from graphprune.structure import Structure

__all__ = ["Dequantized"]

Array = npt.NDArray[Any]

_MICROSOFT = "com.microsoft."
_OPERANDS: dict[str, tuple[int, int | None, int | None, int | str]] = {
    "onnx.DequantizeLinear": (0, 1, 2, "axis"),
    f"{_MICROSOFT}DequantizeLinear": (0, 1, 2, "axis"),
    "onnx.QLinearConv": (3, 4, 5, 0),
    f"{_MICROSOFT}QLinearConv": (3, 4, 5, 0),
    "onnx.ConvInteger": (1, None, 3, 0),
    "onnx.QLinearMatMul": (3, 4, 5, -1),
    "onnx.MatMulInteger": (1, None, 3, -1),
    f"{_MICROSOFT}MatMulIntegerToFloat": (1, 3, 5, -1),
    f"{_MICROSOFT}DynamicQuantizeMatMul": (1, 2, 3, -1),
    f"{_MICROSOFT}QGemm": (3, 4, 5, "transB"),
    f"{_MICROSOFT}MatMulNBits": (1, 2, 3, 0),
}
"""For each operator: operands weight, scale and zero point, and the dimension that a vector of scales runs along."""


@dataclass(frozen=True, slots=True)
class _Quantized:
    """How a weight is to be read; ``bits`` is set where several numbers share a byte of the last dimension."""

    shape: tuple[int, ...]
    scale: str | None
    zero: str | None
    axis: int
    bits: int | None = None


class Dequantized:
    """Reads ``weights`` of a structure, quantised ones as the numbers they stand for.

    ``helpers`` are the names of their scales and zero points.
    """

    def __init__(self, structure: Structure, weights: Weights) -> None:
        self._weights = weights
        self._quantized: dict[str, _Quantized] = {}
        self.helpers: set[str] = set()
        for call in structure.calls:
            if call.op in _OPERANDS:
                self._declare(call)

    def _declare(self, call: Call) -> None:
        weight, scale, zero, axis = _OPERANDS[call.op]
        stored = _constant(call, weight)
        if stored is None or stored.axes is None:
            return
        shape = tuple(int(size) for size in call.sizes(weight) if isinstance(size, int))
        names = [operand.name if operand else None for operand in (_constant(call, scale), _constant(call, zero))]
        if axis == "transB":
            axis = 0 if call.attribute("transB", 0) else 1
        elif isinstance(axis, str):
            axis = int(call.attribute(axis, 1))
        bits = int(call.attribute("bits", 4)) if call.op.endswith("MatMulNBits") else None
        self._quantized[stored.name] = _Quantized(shape, names[0], names[1], axis, bits)
        self.helpers.update(name for name in names if name is not None)

    def __call__(self, name: str) -> Iterator[Block]:
        """The blocks of a weight."""
        quantized = self._quantized.get(name)
        if quantized is None:
            yield from self._weights(name)
            return
        scale = self._spread(quantized.scale, quantized)
        zero = self._spread(quantized.zero, quantized, packed=True)
        for block in self._weights(name):
            values = block.values.astype(np.float32) if quantized.bits is None else _unpacked(block, quantized.bits)
            if zero is not None:
                values -= _part(zero, block, quantized.shape)
            elif quantized.bits is not None:
                values -= 1 << (quantized.bits - 1)
            if scale is not None:
                values *= _part(scale, block, quantized.shape)
            yield Block(block.prefix, block.start, values)

    def _spread(self, name: str | None, weight: _Quantized, packed: bool = False) -> Array | None:
        """A scale or zero point with as many dimensions as the weight, each 1 or the number of its blocks."""
        if name is None:
            return None
        pieces = [block.values.reshape(-1) for block in self._weights(name)]
        values = np.concatenate(pieces).astype(np.float32 if pieces[0].dtype.kind not in "ui" else pieces[0].dtype)
        rank = len(weight.shape)
        if weight.bits is not None:
            rows, blocks = weight.shape[:2]
            if packed and values.dtype == np.uint8 and weight.bits < 8:
                values = _bits(values.reshape(rows, -1), weight.bits)[:, :blocks]
            return values.astype(np.float32).reshape(rows, blocks, 1)
        values = values.astype(np.float32)
        if values.size == 1 or rank == 0:
            return values.reshape((1,) * rank)
        if values.size == weight.shape[weight.axis]:
            return values.reshape([-1 if dim == weight.axis % rank else 1 for dim in range(rank)])
        blocks = values.size * weight.shape[weight.axis] // int(np.prod(weight.shape))
        return values.reshape([blocks if d == weight.axis % rank else size for d, size in enumerate(weight.shape)])


def _constant(call: Call, index: int | None) -> Operand | None:
    operand = None if index is None else call.operand(index)
    return operand if operand is not None and operand.constant else None


def _unpacked(block: Block, bits: int) -> Array:
    return _bits(block.values, bits).astype(np.float32)


def _bits(values: Array, bits: int) -> Array:
    """Numbers packed into bytes along the last dimension, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = (values.astype(np.uint8)[..., None] >> shifts) & ((1 << bits) - 1)
    return numbers.reshape(*values.shape[:-1], -1)


def _part(spread: Array, block: Block, shape: tuple[int, ...]) -> Array:
    """The part of a spread scale or zero point that belongs to a block of a weight of ``shape``."""
    depth = len(block.prefix)
    for dim, index in enumerate(block.prefix):
        spread = spread[index * spread.shape[0] // shape[dim]]
    for dim, size in enumerate(shape[depth:]):
        count = spread.shape[dim]
        if count > 1:
            rows = np.arange(block.start, block.start + len(block.values)) if dim == 0 else np.arange(size)
            spread = spread.take(rows * count // size, axis=dim)
    return spread
