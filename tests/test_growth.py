"""Work grows in proportion to the graph: counted in calls of functions, which no clock disturbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from graphprune.budget import Budget
from graphprune.choose import choose
from graphprune.cost import CostModel
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_slice import slice_model
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models.reference import chain, dense_concat
from graphprune.passes import canonicalize
from graphprune.plan import Plan
from graphprune.proof.compare import error_growth
from graphprune.proof.mask import masked_original
from graphprune.score import Evidence, criterion

SIZES = (25, 50, 100)

MOST = 2.2
"""How much more work the second doubling may add than the first: 2 if linear, 4 if quadratic; the rest is for
logarithms and for what is done once every so many objects."""


class Calls:
    """Counts calls of functions, Python's and built-in ones, by stage."""

    def __init__(self) -> None:
        self.by_stage: dict[str, int] = {}

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any:
        """What ``work`` returns; its calls are counted."""
        count = 0

        def note(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            return work()
        finally:
            sys.setprofile(None)
            self.by_stage[stage] = count


def stages(proto: onnx.ModelProto) -> dict[str, int]:
    """Calls of each stage of pruning ``proto``."""
    calls = Calls()
    model = ir.from_proto(proto)
    calls("canonicalize", lambda: canonicalize(model))
    structure = calls("read", lambda: read(model))
    calls("groups", lambda: structure.groups)
    cost = calls("cost", lambda: CostModel(structure, concrete_sizes(model)))
    calls("counts", lambda: (cost.total, cost.floor))
    scores = calls("score", lambda: criterion("l1").score(Evidence(structure, weights_of(model))))
    selection = calls("choose", lambda: choose(structure, scores, Budget(ratio=0.5), cost=cost))
    calls("plan", lambda: Plan.of(structure, selection))
    calls("mask", lambda: masked_original(model, structure, selection))
    calls("tolerance", lambda: error_growth(structure, {node.name or "": _names(node) for node in model.graph}))
    calls("slice", lambda: slice_model(model, structure, selection))
    return calls.by_stage


def _names(node: ir.Node) -> tuple[str, ...]:
    return tuple(value.name or "" for value in node.outputs)


@pytest.mark.parametrize("build", [chain, dense_concat])
def test_work_grows_with_the_graph(build: Callable[[int], onnx.ModelProto]) -> None:
    stages(build(5))  # what is looked up once and kept
    small, middle, large = (stages(build(size)) for size in SIZES)
    growth = {
        stage: (large[stage] - middle[stage]) / (middle[stage] - small[stage])
        for stage in small
        if middle[stage] > 1.2 * small[stage]
    }
    assert len(growth) >= 8, "a stage that does nothing proves nothing"
    assert {stage: round(value, 2) for stage, value in growth.items() if value > MOST} == {}
