from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from analysed import Analysed, analyse
from onnx_models import parse
from random_graphs import random_model

from graphprune.budget import Budget
from graphprune.choose import choose
from graphprune.cost import CostModel, Counts
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_slice import slice_model
from graphprune.ledger import ceiling, ledger
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.passes import canonicalize
from graphprune.selection import Selection


def convolutions() -> onnx.ModelProto:
    b = GraphBuilder()
    x = b.input("x", ("n", 3, 8, 8))
    x = b.relu(b.conv(x, 8, 3))
    x = b.relu(b.conv(x, 12, 3, groups=2, stride=2))
    x = b.op("Flatten", b.global_pool(x), shape=("n", 12))
    b.output(b.gemm(x, 10), "y")
    return b.model()


def halves(program: Analysed) -> Selection:
    keep = {group.leaf: np.arange(group.size) % 2 == 0 for group in program.structure.groups}
    return Selection(program.structure.space, keep)


def test_convolutions_and_gemm_by_hand() -> None:
    program = analyse(convolutions())
    first, grouped, last = (3 * 8 * 9, 8), (4 * 12 * 9, 12), (12 * 10, 10)
    params = sum(map(sum, (first, grouped, last)))
    macs = first[0] * 64 + grouped[0] * 16 + last[0]
    assert program.cost.total == Counts(params, macs, 4 * params)


def test_a_halved_group_halves_what_it_touches() -> None:
    program = analyse(convolutions())
    (filters,) = (group for group in program.structure.groups if group.size == 6)  # of each of the two conv groups
    before, after = program.cost.total, program.cost.at({filters.leaf: 3})
    assert before.params - after.params == 2 * 3 * (4 * 9 + 1) + 2 * 3 * 10
    assert before.macs - after.macs == 2 * 3 * 4 * 9 * 16 + 2 * 3 * 10


def test_lstm_by_hand() -> None:
    b = GraphBuilder()
    x = b.input("x", (5, 1, 3))
    w, r, bias = b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32)
    y = b.ops("LSTM", x, w, r, bias, shapes=[(5, 1, 1, 4)], hidden_size=4)[0]
    y = b.reshape(y, (5, 1, 4), (5, 1, 4))
    b.output(b.linear(y, 2), "y")
    program = analyse(b.model())
    assert program.cost.total.macs == 5 * (4 * 4 * 3 + 4 * 4 * 4) + 5 * 4 * 2
    assert program.cost.total.params == 16 * 3 + 16 * 4 + 32 + 4 * 2 + 2
    assert program.cost.of(halves(program)).macs == 5 * (4 * 2 * 3 + 4 * 2 * 2) + 5 * 2 * 2


def test_attention_by_hand() -> None:
    b = GraphBuilder()
    x = b.input("x", (1, "t", 8))

    def heads(value: str, *perm: int) -> object:
        y = b.linear(x, 8, bias=False)
        return b.transpose(b.reshape(y, (0, 0, 2, 4), (1, "t", 2, 4)), *perm)

    q, k, v = heads("q", 0, 2, 1, 3), heads("k", 0, 2, 3, 1), heads("v", 0, 2, 1, 3)
    y = b.matmul(b.softmax(b.matmul(q, k)), v)
    y = b.reshape(b.transpose(y, 0, 2, 1, 3), (0, 0, -1), (1, "t", 8))
    b.output(b.linear(y, 8, bias=False), "y")
    model = b.model()
    t = 6
    program = analyse(model, {"t": t})
    assert program.cost.total.macs == 4 * t * 64 + 2 * (2 * t * 4 * t)
    assert analyse(model).cost.total.macs == 4 * 128 * 64 + 2 * (2 * 128 * 4 * 128)


def test_small_integers_are_bytes_but_no_parameters() -> None:
    b = GraphBuilder(dtype=np.float16)
    x = b.input("x", (2, 6))
    b.output(b.linear(b.gather(x, b.ints(0, 1, 2), 1), 5), "y")
    total = analyse(b.model()).cost.total
    assert total.params == 3 * 5 + 5
    assert total.bytes == 2 * total.params + 3 * 8


def test_known_networks() -> None:
    # published for one 224x224 image: 1.81 G and 11.7 M, 0.30 G and 3.5 M, 4.09 G and 25.6 M
    for build, macs, params in (
        (reference.resnet18, 1.81e9, 11.7e6),
        (reference.mobilenet_v2, 0.30e9, 3.5e6),
        (reference.resnet50, 4.09e9, 25.6e6),
    ):
        total = analyse(build()).cost.total
        assert total.macs == pytest.approx(macs, rel=0.01)
        assert total.params == pytest.approx(params, rel=0.015)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("cifar10_resnet20_fp32", 40.6e6, 0.27e6), ("imagenet_mobilenetv2_bnfolded_fp32", 300.8e6, 3.49e6)],
)
def test_networks_of_the_corpus(name: str, macs: float, params: float) -> None:
    folder = os.environ.get("GRAPHPRUNE_CORPUS")
    if folder is None:
        pytest.skip("GRAPHPRUNE_CORPUS is not set")
    total = analyse(onnx.load(Path(folder, "onnx", f"{name}.onnx"))).cost.total
    assert (total.macs, total.params) == (pytest.approx(macs, rel=0.01), pytest.approx(params, rel=0.01))


@pytest.mark.parametrize("seed", range(60))
def test_costs_foretell_those_of_the_slim_model(seed: int) -> None:
    program = analyse(random_model(seed))
    if not program.structure.groups:
        pytest.skip("nothing to cut")
    selection = choose(program.structure, program.scores("random"), Budget(ratio=0.5))
    foretold = program.cost.of(selection)
    slice_model(program.model, program.structure, selection)
    found = Analysed(program.model).cost.total
    assert (found.params, found.macs) == (foretold.params, foretold.macs)
    assert abs(found.bytes - foretold.bytes) < 200  # shape constants that the writer adds, indices that it drops
    if selection.keep:
        assert foretold.bytes < program.cost.total.bytes


def test_symbolic_sizes_get_typical_numbers() -> None:
    b = GraphBuilder()
    x = b.input("image", ("batch", 3, "h", "w"))
    b.output(b.conv(x, 4, 3, stride=2), "y")
    model = analyse(b.model()).model
    assert concrete_sizes(model)["y"] == (1, 4, 112, 112)
    assert concrete_sizes(model, {"h": 64, "batch": 3})["y"] == (3, 4, 32, 112)
    assert analyse(b.model(), {"h": 32, "w": 32}).cost.total.macs == 3 * 4 * 9 * 16 * 16


def test_sizes_inside_bodies() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (bool flag, float[n, t] x) => (float[n, c, s] y)
    <int64[2] end = {0, 2}, int64[1] one = {1}, float[4, 1, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
    {
        pads = Concat<axis = 0>(zeros, end)
        y = If (flag) <
            then_branch = a () => (float[n, c, sp] p) { px = Pad(x, pads) pu = Unsqueeze(px, one) p = Conv(pu, w) },
            else_branch = b () => (float[n, c, sq] q) { qu = Unsqueeze(x, one) q = Conv(qu, w) }
        >
    }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2, np.int64), "zeros"))
    program = analyse(proto, {"t": 20})
    assert concrete_sizes(program.model, {"t": 20})["px"] == (1, 22)
    assert program.cost.total.macs == 4 * 3 * (20 + 18)


def test_sizes_that_nothing_tells_count_once() -> None:
    program = analyse(convolutions())
    assert CostModel(program.structure).total.params == program.cost.total.params
    assert 0 < CostModel(program.structure).total.macs <= program.cost.total.macs


def test_ceiling_and_ledger_add_up() -> None:
    b = GraphBuilder()
    x = b.input("x", (1, 6))
    locked = b.gemm(x, 5)
    b.output(locked, "a")
    b.output(b.gemm(b.relu(b.gemm(x, 8)), 3), "b")
    program = analyse(b.model())
    reach = ceiling(program.cost)
    total = program.cost.total
    assert reach.macs == pytest.approx((6 * 8 + 8 * 3) / total.macs)
    assert reach.params == pytest.approx((6 * 8 + 8 + 8 * 3) / total.params)
    entries = ledger(program.cost)
    assert sum(entry.macs for entry in entries) == 6 * 5
    assert sum(entry.params for entry in entries) == 6 * 5 + 5 + 3
    assert entries[0].reason == "the model's interface"


@pytest.mark.parametrize("seed", range(40))
def test_the_ledger_explains_all_that_is_out_of_reach(seed: int) -> None:
    cost = analyse(random_model(seed)).cost
    entries = ledger(cost)
    assert sum(entry.macs for entry in entries) == cost.floor.macs
    assert sum(entry.params for entry in entries) == cost.floor.params
    assert all(entry.reason for entry in entries)
    shares = [entry.share for entry in entries]
    assert shares == sorted(shares, reverse=True)


def test_the_ledger_names_the_operator_and_not_the_kernel() -> None:
    b = GraphBuilder()
    x = b.relu(b.conv(b.input("x", (1, 3, 8, 8)), 8, 3))
    x = b.op("ArgMax", b.conv(x, 6, 3), shape=(1, 1, 8, 8), axis=1)
    b.output(x, "y", np.int64)
    program = analyse(b.model())
    assert ceiling(program.cost).macs == 1
    b = GraphBuilder()
    x = b.conv(b.input("x", (1, 3, 8, 8)), 6, 3)
    b.output(b.op("ArgMax", x, shape=(1, 1, 8, 8), axis=1), "y", np.int64)
    entry = ledger(analyse(b.model()).cost)[0]
    assert entry.op == "onnx.ArgMax"
    assert entry.share == 1


def test_extents_are_traced_to_groups() -> None:
    model = parse(
        "g (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] y) {"
        " a = Conv(x, u)\n b = Conv(x, v)\n c = Concat<axis=1>(a, b)\n y = Conv(c, w) }",
        u=np.ones((4, 2, 1, 1), np.float32),
        v=np.ones((6, 2, 1, 1), np.float32),
        w=np.ones((3, 10, 1, 1), np.float32),
    )
    canonicalize(model)
    structure = read(model)
    cost = CostModel(structure)
    (joined,) = cost.term([structure.axis("w", 1)]).slots
    assert joined >= cost.basic
    assert cost.parts(joined) == {0, 1}
    assert cost.parts(1) == {1}
    assert cost.extents({structure.groups[0].leaf: 1})[joined] == 7
