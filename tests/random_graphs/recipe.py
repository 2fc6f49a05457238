"""Recipes: what a random graph is made of, as plain data that hypothesis can shrink, and how one is built."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from graphprune.models.reference.builder import Dim, Value
from random_graphs import (
    blocks_attention,
    blocks_contrib,
    blocks_control,
    blocks_conv,
    blocks_movement,
    blocks_pointwise,
    blocks_quantized,
    blocks_recent,
    blocks_tokens,
    blocks_vector,
)
from random_graphs.convert import CHANNEL_AXIS, convert, project, trim
from random_graphs.tape import BLOCKS, MAP, TOKENS, VECTOR, Block, Tape, Unfit

__all__ = ["OPSETS", "SOURCES", "WRAPS", "Recipe", "Step", "build", "random_recipe"]

BLOCK_FILES = (
    blocks_attention,
    blocks_contrib,
    blocks_control,
    blocks_conv,
    blocks_movement,
    blocks_pointwise,
    blocks_quantized,
    blocks_recent,
    blocks_tokens,
    blocks_vector,
)
OPSETS = (9, 11, 13, 17, 18, 21, 23)
WRAPS = ("plain", "residual", "concat", "branches", "gate", "keep")
VOCABULARY = 11


@dataclass(frozen=True, slots=True)
class Step:
    """One block, how it is wrapped, and the seed of its own choices."""

    block: str
    wrap: str
    seed: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a graph: building it twice gives the same bytes."""

    opset: int
    source: str
    batch: Dim
    steps: tuple[Step, ...]
    head: str
    seed: int
    share_constants: bool = False
    constant_nodes: bool = False


def image(t: Tape, batch: Dim) -> tuple[Value, str]:
    size = t.pick([4, 6, 8, 8])
    symbolic = isinstance(batch, str) and t.chance(0.3)
    shape: tuple[Dim, ...] = (batch, 3, *(("height", "width") if symbolic else (size, size)))
    x = t.conv(t.input("image", shape), t.width(), 3)
    if t.chance(0.15):
        y = t.conv(t.input("other", shape), t.width(), 3)
        x = t.concat([x, y], 1) if t.chance(0.5) else t.add(project(t, x, y[1], MAP), y)
    return x, MAP


def ids(t: Tape, batch: Dim) -> tuple[Value, str]:
    length: Dim = "length" if isinstance(batch, str) and t.chance(0.5) else t.pick([4, 6, 8])
    indices = t.input("ids", (batch, length), np.int64)
    c = t.width()
    x = t.gather(t.weight(VOCABULARY, c, scale=1.0), indices, 0)
    if t.chance(0.3):
        kinds = t.input("kinds", (batch, length), np.int64)
        x = t.add(x, t.gather(t.weight(VOCABULARY, c, scale=1.0), kinds, 0))
    return x, TOKENS


def features(t: Tape, batch: Dim) -> tuple[Value, str]:
    length: Dim = "length" if isinstance(batch, str) and t.chance(0.5) else t.pick([4, 6, 8])
    return t.dense(t.input("features", (batch, length, 5)), t.width()), TOKENS


def signal(t: Tape, batch: Dim) -> tuple[Value, str]:
    x = t.input("signal", (batch, 3, 16))
    x = t.act(t.conv(x, t.width(), 3, stride=2))
    return t.transpose(x, 0, 2, 1), TOKENS


def vector(t: Tape, batch: Dim) -> tuple[Value, str]:
    return t.dense(t.input("vector", (batch, 7)), t.width()), VECTOR


SOURCES: dict[str, tuple[Callable[[Tape, Dim], tuple[Value, str]], str]] = {
    "image": (image, MAP),
    "ids": (ids, TOKENS),
    "features": (features, TOKENS),
    "signal": (signal, TOKENS),
    "vector": (vector, VECTOR),
}
HEADS = ("logits", "logits", "logits", "logits", "last", "both")


def random_recipe(seed: int) -> Recipe:
    """Return the recipe of ``seed``: mostly blocks of one kind, now and then a change of kind.

    The first block is the one whose turn it is, so that a run of seeds has them all.
    """
    choice = random.Random(seed)
    picked = list(BLOCKS.values())[seed % len(BLOCKS)]
    opset = choice.choice([opset for opset in OPSETS if opset >= picked.since])
    fitting = [name for name, (_, kind) in SOURCES.items() if kind == picked.kind]
    source = choice.choice(fitting) if choice.random() < 0.8 else choice.choice(list(SOURCES))
    steps = []
    for index in range(choice.randint(2, 5)):
        kind = picked.kind if choice.random() < 0.85 else choice.choice([MAP, MAP, TOKENS, VECTOR])
        if index:
            usable = [block for block in BLOCKS.values() if block.kind == kind and block.since <= opset]
            picked = choice.choices(usable, weights=[block.weight for block in usable])[0]
        wrap = choice.choices(WRAPS, weights=[10, 3, 2, 2, 1, 1])[0]
        steps.append(Step(picked.name, wrap, choice.getrandbits(32)))
    return Recipe(
        opset,
        source,
        choice.choice([1, 2, "batch"]),
        tuple(steps),
        choice.choice(HEADS),
        choice.getrandbits(32),
        choice.random() < 0.3,
        choice.random() < 0.3,
    )


def build(recipe: Recipe, dtype: npt.DTypeLike = np.float32) -> onnx.ModelProto:
    """Build the graph of ``recipe``; a step that does not fit is left out.

    The names of the blocks that it has are in the metadata property ``blocks``, in order.
    """
    t = Tape(
        opset=recipe.opset,
        seed=recipe.seed,
        dtype=dtype,
        name="random",
        share_constants=recipe.share_constants,
        constant_nodes=recipe.constant_nodes,
    )
    with t.scope(recipe.source):
        x, kind = SOURCES[recipe.source][0](t, recipe.batch)
    kept: list[Value] = []
    for index, step in enumerate(recipe.steps):
        t.reseed(step.seed)
        with t.scope(f"{index}.{step.block}"):
            x, kind = take(t, x, kind, step, kept)
    t.reseed(recipe.seed)
    with t.scope("head"):
        finish(t, x, kind, recipe.head, kept)
    model = t.model()
    onnx.helper.set_model_props(model, {"blocks": " ".join(t.used)})
    return model


def take(t: Tape, x: Value, kind: str, step: Step, kept: list[Value]) -> tuple[Value, str]:
    """Append one step; return the value unchanged where it does not fit."""
    block = BLOCKS[step.block]
    if block.since > t.opset:
        return x, kind
    mark = t.mark()
    try:
        entry = convert(t, x, kind, block.kind)
        y = wrap(t, entry, block, step.wrap)
        y = trim(t, y, block.kind)
    except Unfit:
        t.rollback(mark)
        return x, kind
    if step.wrap == "keep":
        kept.append(entry)
    return y, block.kind


def run(t: Tape, x: Value, block: Block) -> Value:
    y = block.build(t, x)
    t.used.append(block.name)
    return y


def wrap(t: Tape, x: Value, block: Block, how: str) -> Value:
    """Build ``block`` on ``x`` and join its result with ``x``, or with a second block's result."""
    y = run(t, x, block)
    if how in ("plain", "keep"):
        return y
    axis = CHANNEL_AXIS[block.kind]
    other = x
    if how == "branches":
        second = t.pick([b for b in BLOCKS.values() if b.kind == block.kind and b.since <= t.opset])
        mark = t.mark()
        try:
            other = run(t, x, second)
        except Unfit:
            t.rollback(mark)
    if other.shape[:axis] + other.shape[axis + 1 :] != y.shape[:axis] + y.shape[axis + 1 :]:
        return y
    if how == "concat" or (how == "branches" and t.chance(0.5)):
        t.used.append("wrap_concat")
        parts = [other, y] if t.chance(0.5) else [y, other]
        return t.concat(parts + ([x] if other is not x and x.shape == other.shape and t.chance(0.3) else []), axis)
    if other.shape != y.shape:
        other = project(t, other, y[axis], block.kind)
    t.used.append("wrap_gate" if how == "gate" else "wrap_residual")
    if how == "gate":
        return t.mul(y, t.op("Sigmoid", other))
    return t.add(*([other, y] if t.chance(0.5) else [y, other]))


def finish(t: Tape, x: Value, kind: str, head: str, kept: list[Value]) -> None:
    """Add the outputs: logits over the pooled value, the value itself, or both; and a value kept on the way."""
    if head != "logits":
        t.output(x, "last")
    if head != "last":
        mark = t.mark()
        try:
            y = t.dense(convert(t, x, kind, VECTOR), 5)
        except Unfit:
            t.rollback(mark)
            y = x
        t.output(y, "logits")
    if kept and t.chance(0.5):
        t.output(kept[0], "kept")
