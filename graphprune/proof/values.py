"""Other values for the parameters of a model, made lazily and the same for the same seed.

:func:`poison` changes what a selection removes, :func:`perturb` everything by about the size of rounding, and
:func:`reseed` gives the cut parameters of an original and its slim model new values that fit each other.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.proof.weights import array_of
from graphprune.selection import Mask, Selection
from graphprune.structure import Structure

__all__ = ["perturb", "poison", "reseed"]

SMALL = 16
CHUNK_ELEMENTS = 1 << 20
POOL = 4093  # prime, so that repeating it does not align with any dimension
DEEP_POOL = 65521


def _seed(seed: int, value: ir.Value) -> int:
    return seed + zlib.crc32((value.name or "").encode())


def poison(model: ir.Model, structure: Structure, selection: Selection, seed: int = 0) -> None:
    """Replace the removed positions of all parameters, in place and lazily, by other values of the same parameter.

    A value taken from elsewhere in the tensor is one that the operators accept (a variance stays positive, an index in
    range); numbers are enlarged a little, and zeros replaced, so that they are not what they were.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            axes = structure.tensors.get(value.name or "")
            if tensor is None or axes is None or not any(selection.cuts(axis) for axis in axes):
                continue
            masks = [selection.mask(axis) for axis in axes]
            value.const_value = _poisoned(tensor, masks, _seed(seed, value))


def _poisoned(tensor: ir.TensorProtocol, masks: list[Mask], seed: int) -> ir.LazyTensor:
    def make() -> ir.TensorProtocol:
        array = np.array(array_of(tensor))
        pool = _garbage(array, np.random.default_rng(seed))
        rows = max(1, CHUNK_ELEMENTS // max(1, array.size // len(array)))
        for start in range(0, len(array), rows):
            piece = array[start : start + rows]
            kept = np.ones((), dtype=np.bool_)
            for mask in (masks[0][start : start + rows], *masks[1:]):
                kept = np.logical_and.outer(kept, mask)
            np.copyto(piece, np.resize(pool, piece.shape), where=~kept)
        return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)

    return ir.LazyTensor(make, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _garbage(array: npt.NDArray[Any], generator: np.random.Generator) -> npt.NDArray[Any]:
    """A small pool of values, to be repeated, so that a giant tensor needs no giant draws."""
    pool = array.reshape(-1)[generator.integers(0, array.size, min(array.size, POOL))]
    if array.dtype.kind != "f":
        return pool
    with np.errstate(over="ignore"):
        grown = (pool * generator.uniform(1.5, 3, pool.shape)).astype(array.dtype)
    grown = np.where(np.isfinite(grown), grown, pool)
    return np.where(grown == 0, generator.uniform(0.5, 1, pool.shape).astype(array.dtype), grown)


def perturb(model: ir.Model, size: float, seed: int = 0) -> None:
    """Change every floating-point parameter by a relative ``size`` with random sign, in place and lazily.

    Small ones stay: they may be scales of Resize, bounds or epsilons, in which an exact number is meant.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.size < SMALL:
                continue
            if tensor.dtype.is_floating_point() and tensor.dtype.bitwidth >= 16:
                value.const_value = _perturbed(tensor, size, _seed(seed, value))


def _perturbed(tensor: ir.TensorProtocol, size: float, seed: int) -> ir.LazyTensor:
    def make() -> ir.TensorProtocol:
        array = array_of(tensor)
        wide = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
        signs = np.random.default_rng(seed).integers(0, 2, POOL) * 2 - 1
        factor = np.resize((1 + size * signs).astype(wide.dtype), wide.shape)
        return ir.tensor(wide * factor, name=tensor.name)

    dtype = ir.DataType.DOUBLE if tensor.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    return ir.LazyTensor(make, dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def reseed(original: ir.Model, slim: ir.Model, structure: Structure, selection: Selection, seed: int = 0) -> bool:
    """Give every parameter that is cut random values, the slim model the kept part of them, both in place.

    Returns whether it could be done: False where the slim model lacks one of these parameters by name.
    """
    cut = {
        name: value
        for graph in original.graphs()
        for name, value in graph.initializers.items()
        if any(selection.cuts(axis) for axis in structure.tensors.get(name) or ())
    }
    slimmed = {name: value for graph in slim.graphs() for name, value in graph.initializers.items() if name in cut}
    if slimmed.keys() != cut.keys():
        return False
    for name, value in cut.items():
        axes = structure.tensors[name]
        if value.const_value is None or axes is None or not value.const_value.dtype.is_floating_point():
            continue
        whole = _random(value.const_value, _seed(seed, value))
        value.const_value = whole
        slimmed[name].const_value = _part(whole, [np.flatnonzero(selection.mask(axis)) for axis in axes])
    return True


def _part(whole: ir.LazyTensor, kept: list[npt.NDArray[np.intp]]) -> ir.LazyTensor:
    def make() -> ir.TensorProtocol:
        return ir.Tensor(whole.numpy()[np.ix_(*kept)], dtype=whole.dtype, name=whole.name)

    return ir.LazyTensor(make, whole.dtype, ir.Shape([len(index) for index in kept]), name=whole.name)


def _random(tensor: ir.TensorProtocol, seed: int) -> ir.LazyTensor:
    """A tensor's own values in another order; where they are all equal, values that keep a signal at its scale."""

    def make() -> ir.TensorProtocol:
        array = array_of(tensor)
        generator = np.random.default_rng(seed)
        own = array.reshape(-1)[:DEEP_POOL]
        if (own != own[0]).any():
            pool = generator.permutation(own)
        elif array.ndim > 1:
            pool = generator.standard_normal(DEEP_POOL) * np.sqrt(2 * len(array) / array.size)
        elif own[0] == 0:
            pool = 0.1 * generator.standard_normal(array.size)
        else:
            pool = own[0].astype(np.float64) * generator.uniform(0.5, 1.5, array.size)
        return ir.Tensor(np.resize(pool.astype(array.dtype), array.shape), dtype=tensor.dtype, name=tensor.name)

    return ir.LazyTensor(make, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)
