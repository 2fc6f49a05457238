"""What stays of a tensor, whatever its size and wherever it is cut."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx_ir as ir
import pytest

from graphprune.frontends.sliced_tensor import BLOCK, SlicedTensor, taken


def some(size: int, seed: int) -> np.ndarray:
    chosen = np.random.default_rng(seed).random(size) < 0.5
    return np.flatnonzero(chosen)


@pytest.mark.parametrize("shape", [(5, 7), (700, 300), (300, 7, 130), (3, 1 << 18), (1 << 18, 3), (64, 48, 11, 9)])
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (0, 1, 2), (1, 2)])
def test_taken_is_what_indexing_gives(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    kept = {dim: some(shape[dim], dim) for dim in dims if dim < len(shape)}
    expected = array[np.ix_(*(kept.get(dim, np.arange(size)) for dim, size in enumerate(shape)))]
    found = taken(array, kept)
    assert found.flags.c_contiguous
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, expected)


def test_blocks_are_what_the_large_ones_are_copied_by() -> None:
    assert np.zeros((700, 300), np.float32).nbytes > 3 * BLOCK


def test_a_sliced_tensor_says_what_it_holds() -> None:
    source = ir.tensor(np.arange(12, dtype=np.float32).reshape(3, 4), name="weight")
    tensor = SlicedTensor(source, {1: np.array([0, 3])})
    assert (tensor.name, tensor.dtype, tensor.shape.numpy()) == ("weight", ir.DataType.FLOAT, (3, 2))
    expected = np.array([[0, 3], [4, 7], [8, 11]], dtype=np.float32)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert tensor.tobytes() == expected.tobytes()


def test_a_sliced_tensor_goes_without_the_collector() -> None:
    gc.disable()
    try:
        source = ir.tensor(np.zeros((3, 4), np.float32))
        gone = weakref.ref(source.raw)
        tensor = SlicedTensor(source, {0: np.array([1])})
        del source
        assert gone() is not None
        del tensor
        assert gone() is None
    finally:
        gc.enable()
