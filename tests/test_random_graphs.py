from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from random_graphs import BLOCKS, Recipe, build, random_inputs, random_model, recipes

SEEDS = 300


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, random_inputs(model))


def blocks(model: onnx.ModelProto) -> list[str]:
    return next(entry.value for entry in model.metadata_props if entry.key == "blocks").split()


def test_each_seed_runs_and_every_block_occurs() -> None:
    seen: Counter[str] = Counter()
    opsets: Counter[int] = Counter()
    for seed in range(SEEDS):
        model = random_model(seed)
        for value, output in zip(model.graph.output, run(model), strict=True):
            assert np.isfinite(output).all(), (seed, value.name)
            assert output.size == 0 or 1e-3 < np.abs(output).max() < 1e4, (seed, value.name)
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert all(dim in (0, size) for dim, size in zip(dims, output.shape, strict=True)), (seed, value.name)
        seen.update(blocks(model))
        opsets[model.opset_import[0].version] += 1
    missing = set(BLOCKS) | {"wrap_residual", "wrap_concat", "wrap_gate"}
    assert not missing - set(seen)
    assert set(opsets) == {9, 11, 13, 17, 18, 21, 23}


def test_same_seed_same_bytes() -> None:
    for seed in range(20):
        assert random_model(seed).SerializeToString() == random_model(seed).SerializeToString()
    assert random_model(1).SerializeToString() != random_model(2).SerializeToString()


@pytest.mark.parametrize("seed", range(20))
def test_half_precision_runs(seed: int) -> None:
    model = random_model(seed, np.float16)
    assert {output.dtype for output in run(model)} == {np.dtype(np.float16)}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(recipes())
def test_what_hypothesis_draws_runs(recipe: Recipe) -> None:
    run(build(recipe))
