from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphprune.backends.onnxruntime import session
from graphprune.errors import ModelError
from graphprune.models import Labelled, accuracy, digits_path, digits_test


def test_the_shipped_network_is_small_and_good() -> None:
    test = digits_test()
    assert test.inputs.shape == (600, 1, 8, 8)
    assert test.inputs.dtype == np.float32
    assert set(test.labels) == set(range(10))
    assert accuracy(digits_path(), test) >= 0.985
    assert accuracy(session(digits_path()), Labelled(test.inputs[:1], test.labels[:1])) in {0.0, 1.0}
    folder = digits_path().parent
    assert sum(file.stat().st_size for file in folder.iterdir()) < 450_000


def test_the_shipped_network_has_what_pruning_must_handle() -> None:
    model = onnx.load(digits_path())
    operators = {node.op_type for node in model.graph.node}
    assert {"Conv", "BatchNormalization", "Add", "Concat", "Mul", "Gemm"} <= operators
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert 60_000 < parameters < 100_000


def test_the_shipped_network_has_no_weights_whose_products_are_subnormal() -> None:
    # A dead channel is exactly dead: what lies between 0 and 1e-12 would only distort how long the network takes.
    for tensor in onnx.load(digits_path()).graph.initializer:
        values = np.abs(onnx.numpy_helper.to_array(tensor))
        assert values[values > 0].min(initial=1.0) >= 1e-12, tensor.name


def test_wrong_labels_score_low() -> None:
    test = digits_test()
    assert accuracy(digits_path(), Labelled(test.inputs, (test.labels + 1) % 10)) < 0.05


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    test = digits_test()
    with pytest.raises(ModelError, match=r"does not run on inputs of shape \(600, 8, 8\)"):
        accuracy(digits_path(), Labelled(test.inputs[:, 0], test.labels))
    with pytest.raises(ModelError, match="no such file"):
        accuracy(tmp_path / "none.onnx", test)
