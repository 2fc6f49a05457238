"""How facts pass through operators that move, join and cut tensors: as the tensors' own elements do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.passes.lossless_facts import MAX_ENTRIES, Fact, expand, fact, number, opaque
from graphprune.passes.lossless_rules import RULES, Known, Sizes, operand, rule
from graphprune.rules.call import Call, Declined
from graphprune.sizes import Size, divide, product_size

__all__ = ["RULES"]


@rule("Transpose")
def _transpose(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    order = call.attribute("perm", range(len(sizes) - 1, -1, -1))
    return [x.map(lambda a: np.transpose(a, order))]


@rule("Reshape Flatten Squeeze Unsqueeze")
def _reshape(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    target = known.sizes(node.outputs[0])
    if target is None:
        raise Declined("to an unknown shape")
    return [_reshaped(x, sizes, target)]


def _reshaped(x: Fact, sizes: Sizes, target: Sizes) -> Fact:
    """Read row by row: runs of dimensions with equal products become each other."""
    shape, made = list(x.label.shape), [1] * len(target)
    ins = [dim for dim, size in enumerate(sizes) if size != 1]
    outs = [dim for dim, size in enumerate(target) if size != 1]
    while ins and outs:
        left, right = [ins.pop(0)], [outs.pop(0)]
        while (have := product_size(sizes[d] for d in left)) != (want := product_size(target[d] for d in right)):
            grow = have < want if isinstance(have, int) and isinstance(want, int) else divide(want, have) is not None
            source, side = (ins, left) if grow else (outs, right)
            if not source:
                raise Declined("sizes cannot be matched")
            side.append(source.pop(0))
        if any(shape[d] != 1 for d in left):
            for d in left:
                shape[d] = _number(sizes[d])
            for d in right:
                made[d] = _number(target[d])
    if ins or outs or int(np.prod(shape)) > MAX_ENTRIES:
        raise Declined("sizes cannot be matched")
    return expand(x, sizes, shape).map(lambda a: a.reshape(made))


def _number(size: Size) -> int:
    if not isinstance(size, int):
        raise Declined("a symbolic size")
    return size


@rule("Expand")
def _expand(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    target = known.sizes(node.outputs[0])
    if target is None:
        raise Declined("to an unknown shape")
    lead = len(target) - len(sizes)
    return [x.map(lambda a: a.reshape((1,) * lead + a.shape))]


@rule("Concat")
def _concat(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    parts = [operand(known, node, index) for index in range(len(node.inputs))]
    at = call.attribute("axis", 1) % len(parts[0][1])
    others = np.broadcast_shapes(*((*f.label.shape[:at], 1, *f.label.shape[at + 1 :]) for f, _ in parts))
    if any(f.known.any() or f.label.size > 1 for f, _ in parts):
        shapes = [(*others[:at], _number(sizes[at]), *others[at + 1 :]) for _, sizes in parts]
        if sum(int(np.prod(shape)) for shape in shapes) > MAX_ENTRIES:
            raise Declined("too many entries")
        facts = [expand(f, sizes, shape) for (f, sizes), shape in zip(parts, shapes, strict=True)]
        sources = [value.name if value is not None else "" for value in node.inputs]
        origin = np.concatenate(
            [np.full(f.label.shape, sources.index(s)) for f, s in zip(facts, sources, strict=True)], at
        )
        label, known_, value, low, high = (
            np.concatenate([getattr(f, name) for f in facts], at) for name in ("label", "known", "value", "low", "high")
        )
        return [fact(number(origin, label), known_, value, (low, high))]
    return [opaque(len(parts[0][1]))]


@rule("Split")
def _split(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    at = call.attribute("axis", 0) % len(sizes)
    if x.label.shape[at] == 1:
        return [x] * len(node.outputs)
    results: list[Fact | None] = []
    start = 0
    for output in node.outputs:
        made = known.sizes(output)
        size = _number(made[at] if made is not None else sizes[at] * 0)
        places = range(start, start + size)
        results.append(x.map(lambda a, places=places: np.take(a, places, at)))
        start += size
    if start != sizes[at]:
        raise Declined("parts of unknown size")
    return results


@rule("Slice")
def _slice(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    names = ("starts", "ends", "axes", "steps")
    given = [
        call.attribute(name) if len(node.inputs) == 1 else known.constant(_input(node, index))
        for index, name in enumerate(names, 1)
    ]
    starts, ends = given[0], given[1]
    dims = given[2] if given[2] is not None else range(len(sizes)) if starts is None else range(len(starts))
    cuts = [slice(None)] * len(sizes)
    for index, dim in enumerate(dims):
        at = int(dim) % len(sizes)
        if x.label.shape[at] == 1:
            continue
        step = 1 if given[3] is None and _input(node, 4) is None else None if given[3] is None else int(given[3][index])
        if starts is None or ends is None or step is None or step < 1:
            raise Declined("computed bounds")
        cuts[at] = slice(int(starts[index]), int(ends[index]), step)
    if starts is None and any(size != 1 for size in x.label.shape):
        raise Declined("computed bounds")
    return [x.map(lambda a: a[tuple(cuts)])]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


@rule("Gather")
def _gather(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    x, sizes = operand(known, node)
    index = known.constant(node.inputs[1])
    at = call.attribute("axis", 0) % len(sizes)
    if index is None or index.ndim > 1:
        raise Declined("computed positions")
    if x.label.shape[at] == 1:
        return [x if index.ndim else x.map(lambda a: a.squeeze(at))]
    return [x.map(lambda a: np.take(a, index.astype(np.int64), at))]


@rule("Pad")
def _pad(known: Known, node: ir.Node, call: Call) -> list[Fact | None]:
    """Only places are padded, and only a number equal to what is padded stays constant."""
    x, sizes = operand(known, node)
    pads = call.attribute("pads", call.attribute("paddings"))
    pads = known.constant(_input(node, 1)) if pads is None else pads
    filler = (
        known.constant(_input(node, 2)) if _input(node, 2) is not None else np.asarray(call.attribute("value", 0.0))
    )
    if (
        pads is None
        or filler is None
        or _input(node, 3) is not None
        or call.attribute("mode", "constant") != "constant"
    ):
        raise Declined("padded by copies or at computed places")
    if any(x.label.shape[d] != 1 and (pads[d] or pads[d + len(sizes)]) for d in range(len(sizes))):
        raise Declined("padded where it is known apart")
    number_ = filler.reshape(())
    bounds = np.minimum(x.low, float(number_)), np.maximum(x.high, float(number_))
    return [fact(x.label, x.known & (x.value == number_), x.value, bounds)]
