"""Graphs that open although what they state is odd: the operator at fault is pinned, and the rest is still pruned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import parse

import graphprune
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read, read_with_sizes

BEFORE = "a = MatMul (x, w1)  b = Relu (a)  y = MatMul (b, w2)"

ODD = {
    "Resize stated with another rank": 'r = Resize <mode: string = "linear"> (q, , scales)',
    "ScatterElements of unlike ranks": "r = ScatterElements <axis: int = 1> (q, i, u)",
}


def odd_network(odd: str) -> onnx.ModelProto:
    """Return a two-layer network beside an operator whose stated shapes contradict it."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 18]>
        graph (float[n, 8] x, float[1, 1, 2, 4] q, int64[1, 2] i, float[1, 2] u) => (float[n, 4] y, float[1, 1, 1] r)
        <float[4] scales = {{1, 1, 0.6, 0.6}}> {{ {BEFORE}  {odd} }}
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (8, 16)), ("w2", (16, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.mark.parametrize("name", ODD)
def test_an_operator_that_contradicts_its_shapes_is_pinned(name: str) -> None:
    result = graphprune.prune(odd_network(ODD[name]), ratio=0.5, verify=False)
    assert result.status == "pruned"
    assert result.model.graph.initializers["w1"].shape == (8, 8)


def test_a_body_that_cannot_be_read_locks_what_it_captures() -> None:
    model = parse(
        """
        main (float[1, 3, 8] x, float[1, 4] start) => (float[1, 4] y, float[1, 3, 4] z) {
            a = MatMul (x, w1)
            b = Relu (a)
            y, z = Scan <num_scan_inputs: int = 1, body: graph = body (float[4] s, float[16] v) =>
                (float[4] t, float[4] u) { m = MatMul (v, w2)  t = Add (s, m)  u = Identity (t) }> ("", start, b)
        }
        """,
        opset=8,
        w1=np.ones((8, 16), np.float32),
        w2=np.ones((16, 4), np.float32),
    )
    structure = read(load(model))
    assert not structure.groups


@pytest.mark.parametrize("size", ["Max (six, two, eight)", "Min (eight)", "Max (two, eight, two)"])
def test_maxima_of_any_number_of_sizes_are_followed(size: str) -> None:
    text = f"""
        graph (int64[1] x) => (int64[1] y)
        <int64[1] six = {{6}}, int64[1] two = {{2}}, int64[1] eight = {{8}}> {{ m = {size}  y = Add (x, m) }}
    """
    _, contents = read_with_sizes(load(parse(text)))
    assert [element.value for element in contents["m"]] == [8]
