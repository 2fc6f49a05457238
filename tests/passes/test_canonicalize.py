from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import LIGHT, corpus, fingerprint, operators, parse, run, session
from random_graphs import random_inputs, random_model

from graphprune.passes import Canonicalize, Context, canonicalize
from graphprune.passes.clones import merge_clones
from graphprune.sample_inputs import input_specs, inputs_that_run

SMALL_LIGHT = ("light_squeezenet", "light_shufflenet", "light_inception_v1", "light_resnet50", "light_densenet121")


def assert_same(wanted: list[np.ndarray], found: list[np.ndarray]) -> None:
    """Folding a weight's Transpose lets ONNX Runtime pack the matrix beforehand, which rounds sums differently."""
    for a, b in zip(wanted, found, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        half = a.dtype == np.float16
        np.testing.assert_allclose(a, b, rtol=2e-3 if half else 1e-4, atol=1e-3 if half else 1e-5)


@pytest.mark.corpus
@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_a_network_computes_the_same_and_comes_to_rest(path: Path) -> None:
    model = ir.load(path)
    signature = [(value.name, str(value.shape)) for value in session(path).get_inputs()]
    canonicalize(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    slim = session(proto)
    kept = [value.name for value in slim.get_inputs()]
    assert kept == [name for name, _ in signature if name in kept]
    assert all(value.shape is not None for graph in model.graphs() for node in graph for value in node.outputs)
    assert not {"Constant", "Identity", "Dropout"} & set(operators(model))
    original = session(path)
    feeds = inputs_that_run(lambda feeds: original.run(None, feeds), input_specs(model))
    assert_same(original.run(None, feeds), slim.run(None, feeds))
    before = fingerprint(model)
    assert not canonicalize(model).modified
    assert fingerprint(model) == before


@pytest.mark.corpus
def test_symbolic_dimensions_stay() -> None:
    paths = {path.stem: path for path in corpus()}
    if not paths:
        pytest.skip("GRAPHPRUNE_CORPUS is not set")
    model = ir.load(paths["rxnmapper_albert_mlm_fp32"])
    canonicalize(model)
    assert [str(value.shape) for value in model.graph.inputs] == ["[N,T]", "[N,T]"]
    assert run(model, {name: np.ones((3, 5), np.int64) for name in ("input_ids", "attention_mask")})[0].shape[:2] == (
        3,
        5,
    )


@pytest.mark.parametrize("name", SMALL_LIGHT)
def test_weights_that_are_computed_become_initializers(name: str) -> None:
    path = LIGHT / f"{name}.onnx"
    model = ir.load(path)
    report = canonicalize(model)
    assert "ConstantOfShape" not in operators(model)
    assert [value.name for value in model.graph.inputs] in (["data_0"], ["gpu_0/data_0"])
    assert report.notes
    feeds = {model.graph.inputs[0].name: np.random.default_rng(0).random((1, 3, 224, 224), np.float32)}
    assert_same(run(path, feeds), run(model, feeds))


def test_computed_weights_take_no_memory() -> None:
    model = ir.load(LIGHT / "light_vgg19.onnx")
    canonicalize(model)
    weights = [value.const_value for value in model.graph.initializers.values()]
    assert sum(tensor.nbytes for tensor in weights) > 5e8
    assert sum(tensor.numpy().base.nbytes for tensor in weights if tensor.nbytes > 1e6) < 1000


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_compute_the_same(seed: int) -> None:
    original = random_model(seed)
    feeds = random_inputs(original)
    wanted = run(original, feeds)
    model = ir.from_proto(original)
    before = fingerprint(model)
    report = canonicalize(model)
    assert report.modified == (fingerprint(model) != before)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert_same(wanted, run(model, feeds))
    at_rest = fingerprint(model)
    assert not canonicalize(model).modified
    assert fingerprint(model) == at_rest
    merge_clones(model)
    assert_same(wanted, run(model, feeds))


def test_a_clone_is_canonicalised_apart_from_its_original() -> None:
    original = ir.from_proto(random_model(7))
    before = fingerprint(original)
    canonicalize(original.clone())
    assert fingerprint(original) == before


def test_external_weights_are_not_read(tmp_path: Path) -> None:
    model = parse(
        "agraph (float[N, 64] x) => (float[N, 2048] y) { w = Transpose<perm = [1, 0]>(v)\n y = MatMul(x, w) }",
        v=np.ones((2048, 64 * 32), np.float32)[:, :64].copy(),
    )
    model.graph.initializers["v"].const_value = ir.ExternalTensor(
        "absent.bin", 0, 2048 * 4096 * 4, ir.DataType.FLOAT, shape=ir.Shape((2048, 4096)), name="v", base_dir=tmp_path
    )
    canonicalize(model)
    assert operators(model) == ["Transpose", "MatMul"]


def test_the_report_counts_what_was_done() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { c = Constant<value = float {2.0}>()\n y = Mul(x, c) }")
    context = Context()
    report = Canonicalize()(model, context)
    assert report.counts["lifted constants"] == 1
    assert context.ran("canonicalize")
