from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from analysed import analyse
from onnx import helper, numpy_helper

import graphprune
from graphprune.errors import UsageError
from graphprune.frontends.onnx_reader import read
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.passes import canonicalize
from graphprune.plan import Cut
from graphprune.roles import ROLES

EXPECTED = {
    "bert": {"head": 2, "head width": 4, "ffn": 2},
    "gpt2": {"residual": 1, "head": 2, "head width": 4, "ffn": 2},
    "vit": {"residual": 1, "head": 2, "head width": 2, "ffn": 2},
    "llama": {"residual": 1, "head width": 3, "kv head": 2, "query head": 2, "ffn": 2},
    "mixture_of_experts": {"residual": 1, "ffn": 4},
    "swin_t": {"residual": 2, "head": 4, "head width": 4, "ffn": 4},
    "lstm_tagger": {"embedding": 1, "hidden unit": 2},
    "resnet18": {"channel": 4},
    "vgg16": {"channel": 12},
    "yolo": {},
}


def roles(proto: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(group.role for group in analyse(proto).structure.groups))


@pytest.mark.parametrize("name", EXPECTED)
def test_roles_of_reference_networks(name: str) -> None:
    found = roles(getattr(reference, name)(tiny=True))
    if name in ("vgg16", "yolo"):
        assert set(found) == {"channel"}
    else:
        assert found == EXPECTED[name]


def test_names_say_nothing() -> None:
    model = ir.from_proto(reference.llama(tiny=True))
    canonicalize(model)
    before = [(group.role, group.size) for group in read(model).groups]
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    for number, value in enumerate(list(model.graph.initializers.values())):
        value.name = f"w{number}"
    after = [(group.role, group.size) for group in read(model).groups]
    assert after == before
    assert {role for role, _ in before} <= set(ROLES)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_heads_that_keys_only_repeat_are_query_heads(groups: int) -> None:
    sizes = reference.LlamaSizes(layers=1, hidden=32, heads=4, groups=groups, inner=48, vocabulary=50, longest=32)
    found = {g.role: g.size for g in analyse(reference.llama(sizes=sizes)).structure.groups}
    heads = {1: {"query head": 4}, 2: {"kv head": 2, "query head": 2}, 4: {"head": 4}}[groups]
    assert {role: size for role, size in found.items() if role.endswith("head")} == heads


def test_an_inner_width_that_leads_elsewhere_is_a_channel() -> None:
    b = GraphBuilder()
    x = b.input("x", (2, 5))
    y = b.gemm(b.relu(b.gemm(x, 8)), 6)
    b.output(b.gemm(b.relu(b.gemm(y, 7)), 3), "y")
    assert roles(b.model()) == {"channel": 3}


def test_an_inner_width_under_a_convolution_is_a_channel() -> None:
    b = GraphBuilder()
    x = b.relu(b.conv(b.input("x", (1, 3, 4, 4)), 6, 1))
    x = b.add(x, b.conv(b.relu(b.conv(x, 8, 1)), 6, 1))
    b.output(b.conv(x, 2, 1), "y")
    assert roles(b.model()) == {"channel": 2}


def test_two_sums_are_no_stream_without_a_norm() -> None:
    assert "residual" not in roles(reference.resnet50(tiny=True))


def test_units_of_a_grouped_query_attention_are_cut_alone() -> None:
    model = reference.llama(tiny=True)
    result = graphprune.prune(model, units={"kv_head": 0.5, "head-width": {"ratio": 0.5}})
    assert result.verified
    assert result.plan is not None
    shapes = {name: {d: len(cut.keep) for d, cut in dims.items()} for name, dims in result.plan.cuts.items()}
    # 2 key heads of 2 query heads each, of width 8: half of the key heads, half of each pair of rotated halves
    assert shapes["layers.0.weight"] == {1: 1 * 2 * 4}
    assert shapes["layers.0.weight_1"] == {1: 1 * 4}
    assert not any(name.startswith("layers.0.weight_4") for name in shapes)


def mixture(best: int, experts: int = 6) -> onnx.ModelProto:
    """A layer whose experts are one operator, each token taking ``best`` of them."""
    generator = np.random.default_rng(0)
    sizes = {"r": (8, experts), "w1": (experts, 16, 8), "w2": (experts, 8, 16), "v": (5, 8), "o": (8, 3)}
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"], name="into"),
        helper.make_node("MatMul", ["h", "r"], ["logits"], name="router"),
        helper.make_node(
            "MoE", ["h", "logits", "w1", "", "w2"], ["m"], name="moe", domain="com.microsoft", k=best,
            activation_type="silu",
        ),
        helper.make_node("MatMul", ["m", "o"], ["y"], name="out"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "mixture",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (7, 5))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (7, 3))],
        weights,
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


@pytest.mark.parametrize("best", [1, 2, 4])
def test_experts_go_with_their_rows_of_the_router_but_never_fewer_stay_than_a_token_takes(best: int) -> None:
    found = {g.role: g for g in analyse(mixture(best)).structure.groups}
    assert found["expert"].size == 6
    assert not found["expert"].exact
    assert {str(place) for place in found["expert"].slices} == {"r:1", "w1:0", "w2:0"}
    assert found["ffn"].size == 16
    result = graphprune.prune(mixture(best), units={"expert": 0.95})
    assert result.verified
    assert result.plan is not None
    assert len(result.plan.cuts["w1"][0].keep) == best
    fewer = dataclasses.replace(
        result.plan, cuts={n: {d: Cut(6, (0,)) for d in dims} for n, dims in result.plan.cuts.items()}
    )
    if best > 1:
        with pytest.raises(UsageError, match=rf"'moe' needs {best} positions of 6, and 1 are kept"):
            graphprune.apply(fewer, mixture(best))
