from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from random_graphs import random_inputs

from graphprune.models.reference import REFERENCE, chain, dense_concat, write_big_llama


def run(model: onnx.ModelProto | Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def parameters(model: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


@pytest.mark.parametrize("name", REFERENCE)
def test_tiny_network_runs_with_lively_outputs(name: str) -> None:
    model = REFERENCE[name](tiny=True)
    onnx.checker.check_model(model, full_check=True)
    assert parameters(model) < 400_000
    for value, output in zip(model.graph.output, run(model, random_inputs(model, high=2)), strict=True):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert all(dim in (0, size) for dim, size in zip(dims, output.shape, strict=True))
        assert 0.05 < output.std() < 100


@pytest.mark.parametrize("name", REFERENCE)
def test_same_seed_same_bytes(name: str) -> None:
    build = REFERENCE[name]
    assert build(tiny=True).SerializeToString() == build(tiny=True).SerializeToString()
    assert build(tiny=True, seed=1).SerializeToString() != build(tiny=True).SerializeToString()


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.7), ("mobilenet_v2", 3.5), ("densenet121", 8.0)])
def test_full_size_has_the_published_number_of_parameters(name: str, millions: float) -> None:
    # BatchNorm's mean and variance are initializers here and not parameters in the papers: up to 2 % more
    assert parameters(REFERENCE[name]()) == pytest.approx(millions * 1e6, rel=0.025)


@pytest.mark.parametrize("build", [chain, dense_concat])
def test_scaling_graphs_grow_by_two_or_three_nodes_a_step(build) -> None:
    small, large = build(10), build(30)
    steps = (len(large.graph.node) - len(small.graph.node)) / 20
    assert steps in (2, 3)
    assert np.isfinite(run(large, random_inputs(large))[0]).all()


def test_big_llama_is_streamed_to_external_data(tmp_path: Path) -> None:
    path = write_big_llama(tmp_path / "big.onnx", 0.02, hidden=128)
    model = onnx.load_model(path, load_external_data=False)
    stored = sum(file.stat().st_size for file in tmp_path.glob("weights-*.bin"))
    assert stored >= 0.02e9
    assert path.stat().st_size < 4e6  # the graph and the two rotary tables
    (logits,) = run(path, random_inputs(model))
    assert 0.05 < logits.std() < 100
