from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune
from graphprune.blocks import choose_blocks, gains, influence, residual_blocks
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.passes import Context, Depth, Verify, canonicalize, parse_pipeline, run_passes
from graphprune.passes.base import Report
from graphprune.passes.depth import find_blocks
from graphprune.proof.run import Runner
from graphprune.sample_inputs import random_inputs


def canonical(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    canonicalize(model)
    return model


def ready() -> Context:
    return Context(reports=[("canonicalize", Report(False))])


def names(model: ir.Model) -> list[str]:
    return [block.name for block in find_blocks(model, read(model))]


def stack(*scales: float, tail: bool = False) -> onnx.ModelProto:
    """Blocks ``x + relu(x W) V`` whose last weights have the given scales, then one layer (or nothing)."""
    b = GraphBuilder()
    x = b.gemm(b.input("x", (3, 5)), 8)
    for scale in scales:
        hidden = b.relu(b.matmul(x, b.weight(8, 6, scale=1.0)))
        x = b.add(x, b.matmul(hidden, b.weight(6, 8, scale=scale)))
    b.output(x if tail else b.gemm(x, 4), "y")
    return b.model()


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (reference.resnet18, 1),
        (reference.mobilenet_v2, 1),
        (reference.yolo, 4),
        (reference.vit, 4),
        (reference.bert, 4),
        (reference.llama, 4),
        (reference.swin_t, 8),
        (reference.mixture_of_experts, 1),
        (reference.vgg16, 0),
        (reference.densenet121, 0),
        (reference.unet, 0),
    ],
)
def test_blocks_of_reference_networks(build: Callable[..., onnx.ModelProto], count: int) -> None:
    assert len(names(canonical(build(tiny=True)))) == count


@pytest.mark.parametrize("criterion", ["magnitude", "influence"])
def test_the_block_that_adds_least_goes(criterion: str) -> None:
    model = canonical(stack(1.0, 0.01, 1.0))
    wanted = names(model)[1]
    context = ready()
    report = Depth(blocks=1, criterion=criterion)(model, context)  # type: ignore[arg-type]
    assert report.modified
    assert report.counts == {"blocks": 1}
    assert wanted in report.notes[0]
    assert wanted not in names(model)
    assert len(model.graph.initializers) == len(canonical(stack(1.0, 1.0)).graph.initializers)
    Verify()(model, context)


def test_scores_are_gains_and_influences() -> None:
    model = canonical(stack(1.0, 0.5, 0.0))
    structure = read(model)
    blocks = residual_blocks(structure)
    measured = gains(structure, blocks, weights_of(model))
    for block, gain in zip(blocks, measured, strict=True):
        last = structure.calls[block.calls[-1]].operands[1]
        assert last is not None
        weight = model.graph.initializers[last.name].const_value
        assert weight is not None
        assert gain == pytest.approx(np.linalg.norm(weight.numpy()) / np.sqrt(8))
    x, y = np.array([[3.0, 4.0] * 4]), np.array([[4.0, 3.0] * 4])
    run = {name: x for block in blocks for name in (block.entry, block.exit)} | {blocks[0].entry: x, blocks[0].exit: y}
    run[blocks[1].exit] = -y
    assert influence(structure, blocks[:1], [run]) == pytest.approx([1 - 24 / 25])


@pytest.mark.parametrize("build", [reference.bert, reference.llama, reference.swin_t, reference.yolo])
def test_removed_blocks_equal_silent_ones_and_the_cut_shows(build: Callable[..., onnx.ModelProto]) -> None:
    result = graphprune.prune(build(tiny=True), pipeline="canonicalize, depth{blocks=2}, prune{ratio=0.3}, verify")
    assert result.status == "pruned"
    assert result.verified
    assert any("left out 2 of" in note for note in result.notes)
    assert result.plan is not None
    assert result.plan.prepare.startswith("depth{only=")
    again = graphprune.apply(result.plan, build(tiny=True))
    assert again.verified
    assert (again.params.after, again.macs.after) == (result.params.after, result.macs.after)


def test_a_wrong_removal_is_found() -> None:
    model = canonical(stack(1.0, 1.0))
    context = ready()
    Depth(blocks=1)(model, context)
    (decision,) = context.decisions
    assert isinstance(decision.after, ir.Model)
    weight = next(iter(decision.after.graph.initializers.values()))
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01))
    with pytest.raises(graphprune.VerificationError, match="differs"):
        Verify()(model, context)


def test_all_blocks_may_go_one_after_the_other() -> None:
    model = canonical(stack(1.0, 1.0, 1.0))
    feed = random_inputs(model)
    context = ready()
    Depth(blocks=3)(model, context)
    Verify()(model, context)
    assert names(model) == []
    assert [node.op_type for node in model.graph] == ["Gemm", "Gemm"]
    assert Runner(model)(feed)[0].shape == (3, 4)


def test_a_result_keeps_its_name() -> None:
    model = canonical(stack(1.0, tail=True))
    Depth(blocks=1)(model, context := ready())
    assert [value.name for value in model.graph.outputs] == ["y"]
    Verify()(model, context)


def test_ratio_patterns_and_order() -> None:
    model = canonical(stack(1.0, 0.01, 0.02, 1.0))
    first, second, third, last = names(model)
    report = Depth(ratio=0.5, exclude=(second,))(model.clone(), ready())
    assert report.counts == {"blocks": 1}
    assert third in report.notes[0]
    report = Depth(only=(first, last))(model.clone(), ready())
    assert report.counts == {"blocks": 2}
    (step,) = parse_pipeline("depth{blocks=2 criterion=influence}")
    run_passes(work := model.clone(), [step], ready())
    assert names(work) == [first, last]


def test_what_is_read_from_outside_stays() -> None:
    b = GraphBuilder()
    x = b.gemm(b.input("x", (3, 5)), 8)
    hidden = b.relu(b.matmul(x, b.weight(8, 6)))
    x = b.add(x, b.matmul(hidden, b.weight(6, 8)))
    b.output(b.gemm(x, 4), "y")
    b.output(hidden, "cache")
    assert names(canonical(b.model())) == []


def test_what_is_no_block() -> None:
    b = GraphBuilder()
    x = b.gemm(b.input("x", (3, 8)), 8)
    x = b.add(x, b.relu(x))  # no weights
    x = b.add(b.gemm(x, 8), b.gemm(x, 8))  # neither hangs on the other
    row = b.matmul(x, b.weight(8, 1))
    x = b.op("Add", row, b.matmul(row, b.weight(1, 8)), shape=(3, 8))  # another shape
    b.output(b.gemm(x, 4), "y")
    assert names(canonical(b.model())) == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"blocks": 3}, TargetError, "3 blocks are asked for where 2"),
        ({"ratio": 0.1}, TargetError, "is none"),
        ({}, UsageError, "either blocks"),
        ({"blocks": 1, "ratio": 0.5}, UsageError, "either blocks"),
        ({"ratio": 1.0}, UsageError, "out of range"),
        ({"blocks": -1}, UsageError, "out of range"),
        ({"only": ("nowhere",)}, UsageError, "no residual block"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Depth(**options)(canonical(stack(1.0, 1.0)), ready())  # type: ignore[arg-type]


def test_nested_blocks_do_not_both_go() -> None:
    b = GraphBuilder()
    x = b.gemm(b.input("x", (3, 5)), 8)
    inner = b.matmul(x, b.weight(8, 8))
    inner = b.add(inner, b.matmul(b.relu(inner), b.weight(8, 8)))
    b.output(b.gemm(b.add(x, b.relu(inner)), 4), "y")
    structure = read(canonical(b.model()))
    blocks = residual_blocks(structure)
    assert len(blocks) == 2
    assert set(blocks[0].calls) < set(blocks[1].calls)
    with pytest.raises(TargetError, match="where 1"):
        choose_blocks(blocks, [1.0, 2.0], 2)
