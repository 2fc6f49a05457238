"""A run with stops hands out what a plain run computes, and goes on with the weights that it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import parse

from graphprune.calibration import Calibration, Stop, steps
from graphprune.frontends.weight_access import get_weight, set_weight
from graphprune.passes import canonicalize

RNG = np.random.default_rng(0)
HOSTS = ["onnx", pytest.param("torch", marks=pytest.mark.torch)]


def _program(host: str) -> tuple[Any, list[Any], dict[str, str], list[str]]:
    """A program of two layers with a skip; batches; the names of its values; its weights in order."""
    batches = [RNG.standard_normal((3, 4)).astype(np.float32) for _ in range(3)]
    a, b = (RNG.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    if host == "onnx":
        model = parse(
            "g (float[n, 4] x) => (float[n, 4] y) { h = MatMul(x, a) r = Relu(h) s = MatMul(r, b) y = Add(x, s) }",
            a=a,
            b=b,
        )
        canonicalize(model)
        names = {node.op_type + str(i): node.name or "" for i, node in enumerate(model.graph)}
        nodes = {"first": names["MatMul0"], "second": names["MatMul2"], "h": "h", "r": "r", "s": "s", "y": "y"}
        return model, [{"x": batch} for batch in batches], nodes, ["a", "b"]
    torch = pytest.importorskip("torch")
    from torch import nn

    from graphprune.frontends.torch_program import capture

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x: Any) -> Any:
            return x + self.b(torch.relu(self.a(x)))

    program = capture(Net().eval(), (torch.from_numpy(batches[0]),))
    nodes = {"first": "linear", "second": "linear_1", "h": "linear", "r": "relu", "s": "linear_1", "y": "add"}
    return program, [(batch,) for batch in batches], nodes, ["a.weight", "b.weight"]


@pytest.mark.parametrize("host", HOSTS)
def test_stops_see_what_a_run_computes(host: str) -> None:
    """Before and after nodes, values that were made long before included."""
    program, feeds, nodes, _ = _program(host)
    wanted = [nodes[name] for name in ("h", "r", "s", "y")]
    plain = list(Calibration(program, feeds).observe(wanted))
    stops = [
        Stop(nodes["first"], (nodes["h"],), after=True),
        Stop(nodes["second"], (nodes["r"],)),
        Stop(nodes["second"], (nodes["s"], nodes["h"]), after=True),
        Stop(nodes["first"], (nodes["r"],)),  # lies behind: it is made where the run is
    ]
    for stop, values in zip(stops, steps(program, feeds, stops), strict=True):
        assert len(values) == len(feeds)
        for own, known in zip(values, plain, strict=True):
            assert set(own) == set(stop.names)
            assert all(np.allclose(own[name], known[name], atol=1e-6) for name in stop.names)


@pytest.mark.parametrize("host", HOSTS)
def test_weights_changed_at_a_stop_count(host: str) -> None:
    """What has run keeps its values; what has not runs with the new weights."""
    program, feeds, nodes, (first, second) = _program(host)
    (h, _, s, _) = (nodes[name] for name in ("h", "r", "s", "y"))
    before = list(Calibration(program, feeds).observe([h, s]))
    run = steps(program, feeds, [Stop(nodes["second"], ()), Stop(nodes["second"], (h, s), after=True)])
    next(run)
    set_weight(program, first, np.zeros_like(get_weight(program, first)))
    set_weight(program, second, 2 * get_weight(program, second))
    for own, known in zip(next(run), before, strict=True):
        assert np.allclose(own[h], known[h], atol=1e-6)
        assert np.allclose(own[s], 2 * known[s], atol=1e-5)
