"""Kernels, and the models of one kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from made_up_machine import images

from graphprune import passes
from graphprune.backends.latency.kernels import Kernel, kernels_of, outside
from graphprune.backends.latency.operators import signature, single
from graphprune.backends.latency.tables import is_joint, level_widths
from graphprune.backends.onnxruntime.sessions import session
from graphprune.cost import CostModel
from graphprune.frontends.program import program_of

TEXT = """g (float[N, 3, 8, 8] x) => (float[N, 10] y) {
    a = Conv<pads=[1,1,1,1]>(x, w0)
    b = BatchNormalization(a, s, s, s, s)
    c = Relu(b)
    d = Conv<group=24, pads=[1,1,1,1]>(c, w1)
    e = Conv(d, w2)
    f = Conv(d, w2b)
    h = Concat<axis=1>(e, f)
    i = Conv<pads=[1,1,1,1]>(h, w3)
    j = Add(i, c)
    k = GlobalAveragePool(j)
    l = Flatten(k)
    y = Gemm<transB=1>(l, w4)
}"""


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {
        "w0": (24, 3, 3, 3),
        "s": (24,),
        "w1": (24, 1, 3, 3),
        "w2": (16, 24, 1, 1),
        "w2b": (8, 24, 1, 1),
        "w3": (24, 24, 3, 3),
        "w4": (10, 24),
    }
    return {name: generator.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(name="read")
def _read() -> tuple[ir.Model, CostModel, list[Kernel]]:
    model = images(TEXT, **weights())
    passes.canonicalize(model)
    program = program_of(model)
    cost = CostModel(program.read(), program.sizes())
    return model, cost, kernels_of(model, cost.structure, cost)


def test_operators_that_run_as_one_are_one_kernel(read: tuple[ir.Model, CostModel, list[Kernel]]) -> None:
    _, _, kernels = read
    assert [[node.op_type for node in kernel.nodes] for kernel in kernels] == [
        ["Conv", "BatchNormalization", "Relu"],
        ["Conv"],
        ["Conv"],
        ["Conv"],
        ["Concat"],
        ["Conv"],
        ["Add"],
        ["GlobalAveragePool"],
        ["Gemm"],
    ]
    assert [kernel.kind for kernel in kernels][:4] == ["Conv", "depthwise Conv", "1x1 Conv", "1x1 Conv"]
    roles = [[kernel.role(slot) for slot in kernel.slots] for kernel in kernels]
    assert roles[0] == ["out"]
    assert roles[1] == ["through"]
    assert roles[2] == ["in", "out"]
    assert roles[-1] == ["in"]


def test_one_kernel_runs_at_any_widths(read: tuple[ir.Model, CostModel, list[Kernel]]) -> None:
    model, cost, kernels = read
    for kernel in kernels:
        for widths in level_widths(kernel, cost, 2):
            one = single(kernel, widths, model.opset_imports)
            assert single(kernel, widths, model.opset_imports).model == one.model
            (found,) = session(one.model, threads=1).run(None, one.feeds)
            assert np.isfinite(found).all()
            if kernel.kind == "depthwise Conv":
                assert found.shape == (1, widths[0], 8, 8)
                (node,) = one.model.graph.node
                assert next(each.i for each in node.attribute if each.name == "group") == widths[0]
    assert [is_joint(kernel, cost) for kernel in kernels].count(True) == 1  # the Concat


def test_signatures_tell_shapes_and_attributes_and_nothing_else(
    read: tuple[ir.Model, CostModel, list[Kernel]],
) -> None:
    _, _, kernels = read
    second, third = kernels[2], kernels[3]
    assert signature(second, (24, 8)) == signature(third, (24, 8)) != signature(second, (24, 16))
    assert "float[1x24x8x8]" in signature(second, (24, 8))
    assert len({signature(kernel, kernel.full) for kernel in kernels}) == len(kernels)


def test_what_no_table_can_tell_is_named() -> None:
    model = images(
        """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)
            b = Softsign(a)
            y = Relu(b)
        }""",
        w=np.ones((4, 3, 3, 3), np.float32),
    )
    strange = model.graph.node(1)
    strange.domain, strange.op_type = "com.example", "Strange"
    model.opset_imports["com.example"] = 1
    passes.canonicalize(model)
    program = program_of(model)
    cost = CostModel(program.read(), program.sizes())
    assert [node.op_type for node in outside(model, cost.structure, cost)] == ["Strange"]


def test_tables_hold_every_node_of_a_plain_network(read: tuple[ir.Model, CostModel, list[Kernel]]) -> None:
    model, cost, _ = read
    assert not outside(model, cost.structure, cost)
