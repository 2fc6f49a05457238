"""What a structure looks like as text and as a graph, and how its couplings are explained."""

from __future__ import annotations

import io
from collections.abc import Mapping

import networkx
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from graphprune.coupling import Couplings
from graphprune.errors import UsageError
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.structure import Slice, Structure
from graphprune.views import dump, explain, to_dot, to_graphml, to_networkx

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] image) => (float[N,10] logits) {
  first = Conv <pads: ints = [1,1,1,1]> (image, stem_weight, stem_bias)
  start = Relu (first)
  inner = Conv <pads: ints = [1,1,1,1]> (start, inner_weight)
  active = Relu (inner)
  outer = Conv <pads: ints = [1,1,1,1]> (active, outer_weight)
  sum = Add (start, outer)
  pooled = ReduceMean <axes: ints = [2,3], keepdims: int = 0> (sum)
  logits = Gemm <transB: int = 1> (pooled, head_weight, head_bias)
}
"""
RESIDUAL_WEIGHTS = {
    "stem_weight": (8, 3, 3, 3),
    "stem_bias": (8,),
    "inner_weight": (6, 8, 3, 3),
    "outer_weight": (8, 6, 3, 3),
    "head_weight": (10, 8),
    "head_bias": (10,),
}

JOINED = """
<ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>
net (float[2,4] x) => (float[2,4] y) {
  a = MatMul (x, a_weight)
  b = MatMul (x, b_weight)
  both = Concat <axis: int = 1> (a, b)
  sum = Add (a, b)
  mixed = MatMul (both, both_weight)
  rest = MatMul (sum, sum_weight)
  normal = LayerNormalization (rest, scale)
  last = MatMul (normal, last_weight)
  odd = nobody.Unheard (last)
  y = Add (mixed, odd)
}
"""
JOINED_WEIGHTS = {"a_weight": (4, 5), "b_weight": (4, 5), "both_weight": (10, 4), "sum_weight": (5, 6), "scale": (6,)}
JOINED_WEIGHTS["last_weight"] = (6, 4)


def structure(text: str, weights: Mapping[str, tuple[int, ...]]) -> Structure:
    """The structure of a network written as text; nodes are named after their results."""
    model = parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"make_{node.output[0]}"
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return _read(model)


def _read(model: onnx.ModelProto) -> Structure:
    loaded: ir.Model = load(model)
    infer_shapes(loaded)
    return read(loaded)


@pytest.fixture(scope="module")
def residual() -> Structure:
    return structure(RESIDUAL, RESIDUAL_WEIGHTS)


def test_dump(residual: Structure) -> None:
    assert dump(residual) == (
        "a0  channel[8]  exact  stem_weight:0  stem_bias:0  inner_weight:1  +2 more\n"
        "a1  channel[6]  exact  inner_weight:0  outer_weight:1\n"
        "--  pinned[3]          stem_weight:1  graph input 'image'\n"
        "--  pinned[3]          stem_weight:2  stem_weight:3  inner_weight:2  +3 more"
        "  Conv (3 times): an axis that occurs in this operand alone\n"
        "--  pinned[10]         head_weight:0  head_bias:0  graph output 'logits'\n"
    )
    assert "+" not in dump(residual, None)
    assert dump(residual) == dump(structure(RESIDUAL, RESIDUAL_WEIGHTS))


def test_explain_a_group(residual: Structure) -> None:
    assert str(explain(residual, "inner_weight:1")) == (
        "inner_weight:1 [8] free\n"
        "  group a0: channel[8] exact\n"
        "    stem_weight:0  stem_bias:0  inner_weight:1  outer_weight:0  head_weight:1"
    )


def test_explain_a_pin_that_is_far_away(residual: Structure) -> None:
    assert str(explain(residual, "head_bias")) == (
        "head_bias:0 [10] pinned\n"
        "  graph output 'logits': the model's interface\n"
        "    head_bias:0\n"
        "    -[onnx.Gemm 'make_logits']-> logits:1"
    )


def test_explain_two_coupled_dimensions(residual: Structure) -> None:
    found = explain(residual, "stem_bias", "outer_weight:0")
    assert found.coupled
    assert str(found) == (
        "stem_bias:0 and outer_weight:0 are coupled (group a0)\n"
        "  stem_bias:0\n"
        "  -[onnx.Conv 'make_first']-> first:1\n"
        "  -[onnx.Relu 'make_start']-> start:1\n"
        "  -[onnx.Add 'make_sum']-> outer:1\n"
        "  -[onnx.Conv 'make_outer']-> outer_weight:0"
    )
    assert [hop["node"] for hop in found.to_dict()["couplings"][0]["path"]][-1] == "make_outer"


def test_explain_two_dimensions_that_are_apart(residual: Structure) -> None:
    found = explain(residual, "inner_weight:0", "stem_weight:0")
    assert found.coupled is False
    lines = str(found).splitlines()
    assert lines[0] == (
        "inner_weight:0 and stem_weight:0 are not coupled: no position of the one goes with a position of the other"
    )
    assert [line for line in lines if "group" in line] == [
        "  group a1: channel[6] exact",
        "  group a0: channel[8] exact",
    ]


def test_a_path_follows_positions_not_shared_names() -> None:
    """``a`` and ``b`` are coupled by the sum; the concatenation holds both but couples neither with the other."""
    joined = structure(JOINED, JOINED_WEIGHTS)
    found = explain(joined, "a_weight:1", "b_weight:1")
    assert [hop.node for hop in found.couplings[0].way] == ["make_a", "make_sum", "make_b"]


def test_dump_of_inexact_groups_and_undeclared_operators() -> None:
    text = dump(structure(JOINED, JOINED_WEIGHTS))
    assert "channel[6]     inexact  sum_weight:1  scale:0  last_weight:0  (under LayerNormalization)\n" in text
    assert text.endswith("??  undeclared[1]           nobody.Unheard\n")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("inner_wieght", "did you mean 'inner_weight'"),
        ("make_sum", "'make_sum' is an operator: ask about one of its tensors: start, outer, sum"),
        ("inner_weight:4", "tensor 'inner_weight' has no dimension 4: its shape is 6x8x3x3"),
        ("inner_weight:one", "there is no tensor 'inner_weight:one'; did you mean 'inner_weight'"),
        ("QQQ", "there is no tensor 'QQQ'; `graphprune inspect` lists the parameters"),
    ],
)
def test_questions_that_cannot_be_answered(residual: Structure, asked: str, answer: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(residual, asked)
    assert answer in str(caught.value)


def test_a_negative_dimension_counts_from_the_end(residual: Structure) -> None:
    assert explain(residual, "head_weight:-1").dimensions[0].place == Slice("head_weight", 1)


def test_one_operator_alone_is_asked_on_axes_of_its_own(residual: Structure) -> None:
    before = dump(residual)
    couplings = Couplings(residual)
    for number in range(len(residual.calls)):
        relation = couplings.relation(number)
        assert relation.space is not residual.space
    assert dump(residual) == before


def test_networkx(residual: Structure) -> None:
    graph = to_networkx(residual)
    assert graph.nodes["inner_weight:0"] == {
        "kind": "axis",
        "tensor": "inner_weight",
        "dim": 0,
        "size": "6",
        "parameter": True,
        "pinned": False,
        "groups": "a1",
    }
    assert networkx.has_path(graph, "stem_bias:0", "outer_weight:0")
    assert {data["op"] for _, _, data in graph.edges("sum:1", data=True)} == {"onnx.Add", "onnx.ReduceMean"}
    assert set(graph.neighbors("group a1")) == {"inner_weight:0", "outer_weight:1"}


def test_graph_formats(residual: Structure) -> None:
    graph = to_networkx(residual)
    again = networkx.read_graphml(io.BytesIO(to_graphml(graph).encode()), force_multigraph=True)
    assert set(again) == set(graph)
    assert again.number_of_edges() == graph.number_of_edges()
    dot = to_dot(graph)
    assert dot.startswith("graph couplings {\n")
    assert '  "group a1" [shape=box, label="group a1: channel[6]"];\n' in dot
    assert dot.count(" -- ") == graph.number_of_edges()
