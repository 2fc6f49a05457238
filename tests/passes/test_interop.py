"""Pruning as one pass of ``onnx_ir``."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx_ir.passes import common

import graphprune
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.onnx_file import load
from graphprune.models import accuracy, digits_path, digits_test
from graphprune.passes import Prune, PruneIrPass, format_pipeline, parse_pipeline


def test_pruning_is_one_pass_among_others() -> None:
    model = load(digits_path())
    step = PruneIrPass(macs="50%")
    result = ir.passes.Sequential(common.TopologicalSortPass(), step, common.RemoveUnusedNodesPass())(model)
    assert result.modified
    expected = graphprune.prune(digits_path(), macs="50%")
    counts = graphprune.inspect(result.model).counts
    assert (counts.macs, counts.params) == (expected.macs.after, expected.params.after)
    assert step.context is not None
    assert [name for name, _ in step.context.reports][-3:] == ["verify", "eliminate-dead-nodes", "merge-clones"]
    assert accuracy(ir.to_proto(result.model).SerializeToString(), digits_test()) > 0.9


def test_what_cannot_be_met_is_an_error() -> None:
    with pytest.raises((TargetError, ir.passes.PassError)) as caught:
        PruneIrPass(macs="0.001%", verify=False)(load(digits_path()))
    assert "out of reach" in f"{caught.value}{caught.value.__cause__}"


def test_other_options_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="PruneIrPass has no option 'threads'; it has: verify, context, ratio, macs"):
        PruneIrPass(macs="50%", threads=1)


def test_options_of_a_latency_are_spelled_like_others() -> None:
    steps = parse_pipeline("canonicalize, prune{latency=50% round-to=auto}")
    assert steps[1] == Prune(latency="50%", round_to="auto")
    assert parse_pipeline(format_pipeline(steps)) == steps
    assert parse_pipeline("prune{macs=50% round-to=8}") == [Prune(macs="50%", round_to=8)]
    with pytest.raises(UsageError, match="write a whole number"):
        parse_pipeline("prune{ratio=0.5 round-to=even}")
