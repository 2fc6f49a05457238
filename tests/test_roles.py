from __future__ import annotations

from collections import Counter

import onnx
import onnx_ir as ir
import pytest
from analysed import analyse

import graphprune
from graphprune.frontends.onnx_reader import read
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.passes import canonicalize
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
