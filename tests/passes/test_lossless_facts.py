"""What the lossless pass believes about tensors holds for every tensor of graphs that are run."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import run
from planted_filters import KINDS, plant
from random_graphs import random_inputs, random_model

from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read
from graphprune.passes import canonicalize
from graphprune.passes.lossless_facts import Fact, along, constant, expand, fact, number, opaque
from graphprune.passes.lossless_reading import Sweep
from graphprune.passes.lossless_weights import read_kernel, sum_columns

ROUNDING = 1e-4
"""Of a mean over some thousand equal numbers; relative to the largest number of the tensor, or to 1."""


def check(found: Fact, tensor: np.ndarray) -> Counter[str]:
    """Hold a fact against what a tensor is in one run; counts what it claimed."""
    claims: Counter[str] = Counter()
    slack = ROUNDING * max(1.0, float(np.abs(tensor).max(initial=0)))
    shape = tensor.shape
    assert all(size in (1, whole) for size, whole in zip(found.label.shape, shape, strict=True))
    off = np.abs(tensor - np.broadcast_to(found.value.astype(np.float64), shape))
    assert (off <= slack)[np.broadcast_to(found.known, shape)].all()
    assert (tensor >= found.low - slack).all()
    assert (tensor <= found.high + slack).all()
    claims["constants"] = int(found.known.sum())
    claims["bounds"] = int((np.isfinite(found.low) | np.isfinite(found.high)).sum())
    seen: dict[int, np.ndarray] = {}
    for place in np.ndindex(found.label.shape):
        at = tuple(slice(None) if size == 1 else index for index, size in zip(place, found.label.shape, strict=True))
        first = seen.setdefault(int(found.label[place]), tensor[at])
        if first is not tensor[at]:
            assert np.abs(first - tensor[at]).max(initial=0) <= slack
            claims["equal"] += first.base is not None and not np.shares_memory(first, tensor[at])
    return claims


@pytest.mark.parametrize("kind", KINDS)
def test_facts_hold(kind: str) -> None:
    claims: Counter[str] = Counter()
    for seed in range(20):
        model = load(plant(random_model(seed), kind, seed, layers=0.9)[0])
        canonicalize(model)
        structure = read(model)
        sweep = Sweep(model, structure, 1 << 29)
        sweep.run()
        shown = [
            output
            for node in model.graph
            for output in node.outputs
            if output.dtype == ir.DataType.FLOAT and not output.is_graph_output() and sweep.facts.get(output.name or "")
        ]
        start = len(model.graph.outputs)
        model.graph.outputs.extend(shown)
        tensors = run(model, random_inputs(ir.to_proto(model), seed))[start:]
        for value, tensor in zip(shown, tensors, strict=True):
            found = sweep.facts[value.name or ""]
            assert found is not None
            try:
                claims += check(found, tensor)
            except AssertionError:
                raise AssertionError(f"seed {seed}: {value.name} of {value.producer()}") from None
    assert claims["bounds"] > 50
    assert claims["constants"] > (50 if kind in ("dead", "constant") else -1)
    assert claims["equal"] > (20 if kind == "duplicate" else -1)


def test_labels_are_equal_where_all_keys_are() -> None:
    a, b = np.array([0, 0, 1, 1, 0]), np.array([1.0, 1.0, 1.0, 2.0, 2.0], np.float32)
    assert number(a, b).tolist() == [0, 0, 2, 3, 1]


def test_a_slice_that_is_opened_is_no_longer_equal_to_itself() -> None:
    assert len(np.unique(expand(opaque(2), (4, 5), (4, 1)).label)) == 4
    assert len(np.unique(expand(opaque(1), (1,), (3, 5)).label)) == 1
    opened = expand(fact(np.zeros(1, np.int64), np.ones(1, np.bool_), np.ones(1)), (5,), (5,))
    assert opened.known.all()
    assert len(np.unique(opened.label)) == 1


def test_along_a_dimension_only_what_holds_throughout_stays() -> None:
    tensor = np.array([[1.0, 2, 1], [1, 3, 1], [1, 2, 1]], np.float32)
    line = along(constant(tensor), tensor.shape, 1)
    assert line.known.tolist() == [True, False, True]
    assert (line.low.tolist(), line.high.tolist()) == ([1, 2, 1], [1, 3, 1])
    assert line.label[0] == line.label[2] != line.label[1]
    assert (
        along(constant(tensor), tensor.shape, 0).label.tolist()[0] == along(constant(tensor), tensor.shape, 0).label[2]
    )


def test_equal_bounds_make_a_constant() -> None:
    made = fact(np.arange(2), bounds=(np.zeros(2), np.array([0.0, 1.0])))
    assert made.known.tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.float64])
@pytest.mark.parametrize(("row_dim", "column_dim", "shape"), [(0, 1, (6, 5, 3, 3)), (1, 0, (5, 6)), (1, 2, (1, 6, 5))])
def test_rows_and_zeros_of_a_weight(row_dim: int, column_dim: int, shape: tuple[int, ...], dtype: type) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype)
    array += (array == 0).astype(dtype)
    lines = np.moveaxis(array, (row_dim, column_dim), (0, 1))
    lines[4] = lines[1]
    lines[2, 3] = 0
    kernel = read_kernel(ir.tensor(array), row_dim, column_dim)
    assert kernel.rows[4] == kernel.rows[1]
    assert len(np.unique(kernel.rows)) == 5
    assert np.argwhere(kernel.zero).tolist() == [[2, 3]]


def test_repeated_numbers_are_not_read() -> None:
    kernel = read_kernel(ir.Tensor(np.broadcast_to(np.float32(0.5), (1 << 20, 1 << 20))), 0, 1)
    assert not kernel.rows.any()
    assert not kernel.zero[0, 0]


def test_columns_are_summed_in_order_of_their_target() -> None:
    array = np.arange(12, dtype=np.float32).reshape(2, 6)
    summed = sum_columns(array, 1, np.array([1, -1, 0, 1, 0, 2]), np.array([1.0, 1, 1, 2, 1, 1]))
    assert summed.tolist() == [[6, 6, 5], [18, 24, 11]]
