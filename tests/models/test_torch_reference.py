from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from graphprune.models.reference import REFERENCE as ONNX_REFERENCE

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def reference():
    from graphprune.models.torch_reference import REFERENCE

    return REFERENCE


def test_every_network_has_a_twin(reference) -> None:
    assert list(reference) == list(ONNX_REFERENCE)


@pytest.mark.parametrize("name", ONNX_REFERENCE)
def test_twins_have_the_same_weights_but_for_values(reference, name: str) -> None:
    module, _ = reference[name](tiny=True)
    ours = Counter(tuple(sorted(p.shape)) for p in module.parameters() if p.ndim > 1)
    model = ONNX_REFERENCE[name](tiny=True)
    theirs: Counter[tuple[int, ...]] = Counter()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            theirs[tuple(sorted(tensor.dims))] += 1
    if name == "lstm_tagger":  # ONNX holds both directions of a layer in one tensor
        assert sum(ours.values()) == 2 + 2 * (sum(theirs.values()) - 2 - 2)
    else:
        assert not ours - theirs


@pytest.mark.parametrize("name", ONNX_REFERENCE)
def test_tiny_network_runs_with_lively_outputs(reference, name: str) -> None:
    module, args = reference[name](tiny=True)
    assert not module.training
    with torch.no_grad():
        results = module(*args)
    for output in results if isinstance(results, tuple) else (results,):
        assert output.shape[0] == 2
        assert 0.05 < float(output.std()) < 100


def test_same_seed_same_weights(reference) -> None:
    first, again, other = (reference["lstm_tagger"](tiny=True, seed=seed)[0].state_dict() for seed in (3, 3, 4))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.7), ("mobilenet_v2", 3.5), ("densenet121", 8.0)])
def test_full_size_has_the_published_number_of_parameters(reference, name: str, millions: float) -> None:
    module, _ = reference[name]()
    assert np.isclose(sum(p.numel() for p in module.parameters()), millions * 1e6, rtol=0.01)
