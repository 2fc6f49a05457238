"""Sizes at which multiply-accumulates are counted."""

from __future__ import annotations

import numpy as np
from onnx_models import parse

from graphprune.frontends.onnx_sizes import concrete_sizes


def test_an_empty_constant_makes_no_input_longer() -> None:
    """As exporters leave one where a reduction has no axes; no length would make it larger."""
    model = parse(
        """g (float[N, T] x) => (float[N, T] y) {
            a = ReduceSum<noop_with_empty_axes=1>(x, none)
            y = Relu(a)
        }""",
        none=np.zeros(0, np.int64),
    )
    assert concrete_sizes(model)["x"] == (1, 128)


def test_windows_that_do_not_fit_make_inputs_longer() -> None:
    model = parse(
        "g (float[N, 1, T] x) => (float[N, 4, U] y) { y = Conv<kernel_shape=[400]>(x, w) }",
        w=np.ones((4, 1, 400), np.float32),
    )
    assert concrete_sizes(model)["x"] == (1, 1, 1024)
    assert concrete_sizes(model, {"T": 500})["y"] == (1, 4, 101)
