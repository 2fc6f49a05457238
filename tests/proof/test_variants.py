"""Models that are looked at before their end, or without rounding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.frontends.onnx_reader import read
from graphprune.passes import canonicalize
from graphprune.proof.variants import before_jumps, bounded_outputs, hidden_values, jumps, unround
from graphprune.selection import Selection
from graphprune.structure import Structure


def model(nodes: list[onnx.NodeProto], outputs: dict[str, int], **weights: np.ndarray) -> ir.Model:
    """A graph from ``x`` of shape [2, 6] to ``outputs``, each with its element type."""
    graph = helper.make_graph(
        nodes,
        "variants",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def layers(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "a": rng.normal(size=(6, 8)).astype(np.float32),
        "b": rng.normal(size=(8, 5)).astype(np.float32),
    }


def halved(program: ir.Model) -> tuple[Structure, Selection]:
    canonicalize(program)
    structure = read(program)
    keep = {group.leaf: np.arange(group.size) % 2 == 0 for group in structure.groups}
    return structure, Selection(structure.space, keep)


TWO_LAYERS = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["s"])]
INTEGERS, FLOATS = TensorProto.INT64, TensorProto.FLOAT


def test_a_selection_is_looked_at_before_it_selects() -> None:
    top = helper.make_node("TopK", ["s", "k"], ["best", "where"], axis=1)
    program = model([*TWO_LAYERS, top], {"best": FLOATS, "where": INTEGERS}, k=np.array([2]), **layers())
    structure, selection = halved(program)
    assert jumps(program)
    assert before_jumps(program, structure, selection) == (["s"], frozenset({"best", "where"}))


def test_nothing_is_shown_before_a_selection_with_cuts_behind_it() -> None:
    nodes = [
        *TWO_LAYERS,
        helper.make_node("Floor", ["s"], ["f"]),
        helper.make_node("MatMul", ["f", "c"], ["g"]),
        helper.make_node("MatMul", ["g", "d"], ["y"]),
    ]
    more = {"c": np.ones((5, 4), np.float32), "d": np.ones((4, 3), np.float32)}
    program = model(nodes, {"y": FLOATS}, **layers(), **more)
    assert before_jumps(program, *halved(program)) is None


def test_what_saturates_is_looked_at_before() -> None:
    program = model([*TWO_LAYERS, helper.make_node("Softmax", ["s"], ["p"], axis=1)], {"p": FLOATS}, **layers())
    structure, selection = halved(program)
    assert hidden_values(program, structure, selection) == ["s"]
    assert bounded_outputs(program) == {"p"}


@pytest.mark.parametrize("scale", [0.05, 4.0])
def test_activations_pass_where_rounding_is_left_out(scale: float) -> None:
    nodes = [
        TWO_LAYERS[0],
        helper.make_node("QuantizeLinear", ["h", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "b"], ["y"]),
    ]
    quantum = {"scale": np.float32(scale), "zero": np.uint8(128)}
    program = model(nodes, {"y": FLOATS}, **{k: np.asarray(v) for k, v in quantum.items()}, **layers())
    assert graphprune.prune(program, ratio=0.5).verified
    assert unround(program) == 1
    y = program.graph.outputs[0].producer()
    assert y is not None
    assert y.inputs[0] is not None
    assert y.inputs[0].name == "h"
