from __future__ import annotations

import numpy as np
from onnx_models import fingerprint, operators, parse

from graphprune.passes import EliminateDeadNodes


def test_chains_bodies_and_initializers_without_readers_go() -> None:
    model = parse(
        """agraph (float[2] x, float[2] unused, bool b) => (float[2] y) {
        a = Mul(x, w)
        c = Add(a, v)
        d = If (b) <then_branch = first () => (float[2] p) { q = Neg(x)\n p = Add(c, u) },
                    else_branch = second () => (float[2] r) { r = Neg(c) }>
        y = If (b) <then_branch = third () => (float[2] s) { t = Exp(a)\n s = Neg(x) },
                    else_branch = fourth () => (float[2] z) { z = Add(x, k) }>
        }""",
        w=np.ones(2, np.float32),
        v=np.ones(2, np.float32),
        u=np.ones(2, np.float32),
        k=np.ones(2, np.float32),
    )
    report = EliminateDeadNodes()(model)
    assert report.modified
    assert report.counts == {"dead nodes": 4, "unread initializers": 3}
    assert operators(model) == ["If", "Neg", "Add"]
    assert list(model.graph.initializers) == ["k"]
    assert [value.name for value in model.graph.inputs] == ["x", "unused", "b"]
    before = fingerprint(model)
    assert not EliminateDeadNodes()(model).modified
    assert fingerprint(model) == before


def test_nothing_that_an_output_needs_goes() -> None:
    model = parse("agraph (float[2] x) => (float[2] y, float[2] w) { y, m = Dropout(x) }", w=np.ones(2, np.float32))
    assert not EliminateDeadNodes()(model).modified
    assert operators(model) == ["Dropout"]
    assert list(model.graph.initializers) == ["w"]
