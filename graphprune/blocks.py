"""Residual blocks: branches ``f`` of ``y = x + f(x)`` that can be left out, so that ``y`` is ``x``.

A block is found by one walk back from what is added: everything that it needs and that hangs on ``x`` is its branch.
It counts as a block if the shapes of ``x`` and ``y`` are one, if nothing inside is read from outside (a cache of keys
that the model returns, say), and if weights are multiplied in it. Masks, tables and other inputs may come in. The walk
looks only at operators between ``x`` and the sum, so all walks together are about as long as the graph, times how deep
blocks nest.

How much a block matters is told without data by the gain of its branch, or on data by its *block influence*
``1 - E[cos(x, y)]`` (Men et al. 2024, https://arxiv.org/abs/2403.03853).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.errors import TargetError, UsageError
from graphprune.rules.call import Axes, Call
from graphprune.score.base import Weights
from graphprune.structure import Structure

__all__ = ["ResidualBlock", "choose_blocks", "gains", "influence", "residual_blocks"]

_SUMS = frozenset({"onnx.Add", "onnx.Sum", "aten.add"})
_CHECKS = ("aten._assert", "aten.sym_constrain")
"""Operators that look at a value and make none: they go with what they look at."""

_KEPT_SCALE = frozenset({"onnx.BatchNormalization", "onnx.InstanceNormalization", "onnx.LayerNormalization",
                         "onnx.RMSNormalization", "aten.batch_norm", "aten.layer_norm", "aten.rms_norm",
                         "aten.group_norm", "aten.instance_norm"})  # fmt: skip
"""Operators whose results have the scale of their second operand, whatever comes in."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class ResidualBlock:
    """A sum ``exit = entry + branch`` at the node ``name``; ``calls`` are the numbers of the calls of the branch."""

    name: str
    entry: str
    branch: str
    exit: str
    calls: tuple[int, ...]


def residual_blocks(structure: Structure, read_outside: Collection[str] = ()) -> list[ResidualBlock]:
    """The blocks of a program in reading order.

    ``read_outside`` are tensors that are needed by what is not in the structure's calls: its outputs, bodies.
    """
    return list(_Search(structure, read_outside).blocks())


class _Search:
    """One look at a program."""

    def __init__(self, structure: Structure, read_outside: Collection[str]) -> None:
        self.structure = structure
        self.calls = structure.calls
        self.outside = frozenset(read_outside)
        self.maker: dict[str, int] = {}
        self.readers: defaultdict[str, list[int]] = defaultdict(list)
        for number, call in enumerate(self.calls):
            self.maker.update((name, number) for name in call.results if name)
            for name in dict.fromkeys(_read(call)):
                self.readers[name].append(number)

    def blocks(self) -> Iterable[ResidualBlock]:
        """Every sum of two tensors is tried; the one that is made first may be what the other hangs on."""
        for number, call in enumerate(self.calls):
            names = [operand.name for operand in call.operands if operand is not None]
            if call.op not in _SUMS or len(call.results) != 1 or len(names) < 2 or names[0] == names[1]:
                continue
            if (call.op.startswith("onnx.") and len(names) != 2) or call.attribute("alpha", 1) != 1:
                continue
            entry, branch = sorted(names[:2], key=lambda name: self.maker.get(name, -1))
            inside = self._branch(number, entry, branch)
            if inside and self._whole(call, entry) and self._weighs(inside):
                yield ResidualBlock(call.node, entry, branch, call.results[0], inside)

    def _branch(self, number: int, entry: str, branch: str) -> tuple[int, ...]:
        """The calls of the branch, none if it does not hang on ``entry`` or is read from outside."""
        first = self.maker.get(entry, -1)
        if entry in self.structure.parameters or self.maker.get(branch, -1) <= first:
            return ()
        needed: set[int] = set()
        stack = [branch]
        while stack:
            maker = self.maker.get(stack.pop(), -1)
            if maker > first and maker not in needed:
                needed.add(maker)
                stack.extend(name for name in _read(self.calls[maker]) if name != entry)
        hang = {entry}
        inside: list[int] = []
        for each in sorted(needed):
            call = self.calls[each]
            if not hang.isdisjoint(_read(call)):
                inside.append(each)
                hang.update(name for name in call.results if name)
        if branch not in hang or not self._closed({*inside, number}, hang - {entry}):
            return ()
        return tuple(inside)

    def _closed(self, inside: set[int], made: set[str]) -> bool:
        """Whether nobody outside reads what is made inside."""
        return self.outside.isdisjoint(made) and all(
            reader in inside or self.calls[reader].op.startswith(_CHECKS)
            for name in made
            for reader in self.readers.get(name, ())
        )

    def _whole(self, call: Call, entry: str) -> bool:
        """Whether the sum has the shape of ``entry``."""
        find = self.structure.space.find
        before, after = self.structure.tensors.get(entry), self.structure.tensors.get(call.results[0])
        if before is None or after is None or len(before) != len(after):
            return False
        return all(find(a) is find(b) or (a.size == b.size) for a, b in zip(before, after, strict=True))

    def _weighs(self, inside: Iterable[int]) -> bool:
        """Whether weights are multiplied inside."""
        return any(_weight(self.structure, self.calls[number]) for number in inside)


def _read(call: Call) -> list[str]:
    """Names of the tensors that a call reads, those that its bodies take included."""
    return [*(operand.name for operand in call.operands if operand is not None), *call.border]


def _weight(structure: Structure, call: Call) -> str | None:
    """The parameter that a call multiplies with, if it does."""
    if not call.contractions and call.op not in _RECURRENT:
        return None
    names = [operand.name for operand in call.operands if operand is not None and len(operand.axes or ()) > 1]
    return next((name for name in names if name in structure.parameters), None)


_RECURRENT = frozenset({"onnx.LSTM", "onnx.GRU", "onnx.RNN", "aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu"})


# -- how much they matter ---------------------------------------------------------------------------------------------


def gains(structure: Structure, blocks: Sequence[ResidualBlock], weights: Weights) -> list[float]:
    """For each block how large its branch is where what enters its last weights has mean square 1.

    From the sum backwards, numbers that scale the branch multiply, up to the first normalisation, whose gain is the
    scale, or the first product with weights, whose gain is its Frobenius norm over the root of its results.
    """
    maker = {name: call for call in structure.calls for name in call.results if name}
    return [_gain(structure, maker, {*block.calls}, block.branch, weights) for block in blocks]


def _gain(structure: Structure, maker: Mapping[str, Call], inside: set[int], branch: str, weights: Weights) -> float:
    members = {id(structure.calls[number]) for number in inside}
    total = 0.0
    seen: set[str] = set()
    stack = [(branch, 1.0)]
    while stack:
        name, scale = stack.pop()
        call = maker.get(name)
        if name in seen or call is None or id(call) not in members:
            continue
        seen.add(name)
        weight = _weight(structure, call)
        if call.op in _KEPT_SCALE:
            gain = call.operand(1)
            total += (scale * (_rms(weights, gain.name) if gain and gain.name in structure.parameters else 1.0)) ** 2
        elif weight is not None:
            total += (scale * _norm(structure, call, weight, weights)) ** 2
        else:
            if call.op in ("onnx.Mul", "aten.mul"):
                for operand in call.operands:
                    if operand is not None and operand.name in structure.parameters:
                        scale *= _rms(weights, operand.name)
            data = [o.name for o in call.operands if o is not None and o.elements is None]
            stack.extend((other, scale) for other in (*data, *call.border))
    return math.sqrt(total)


def _norm(structure: Structure, call: Call, name: str, weights: Weights) -> float:
    """The Frobenius norm of a weight over the root of the number of results that it makes of one input."""
    square, _ = _squares(weights, name)
    made = [leaf for result in call.results[:1] for axis in structure.tensors.get(result) or () for leaf in
            structure.leaves(axis)]  # fmt: skip
    axes = structure.tensors.get(name) or ()
    results = math.prod(
        int(axis.size)
        for axis in axes
        if isinstance(axis.size, int) and not set(made).isdisjoint(structure.leaves(axis))
    )
    return math.sqrt(square / max(results, 1))


def _rms(weights: Weights, name: str) -> float:
    square, count = _squares(weights, name)
    return math.sqrt(square / max(count, 1))


def _squares(weights: Weights, name: str) -> tuple[float, int]:
    """The sum of the squares of a parameter, and the number of its elements."""
    square, count = 0.0, 0
    for block in weights(name):
        values = np.asarray(block.values, np.float32)
        square += float(np.vdot(values, values))
        count += values.size
    return square, count


def influence(
    structure: Structure, blocks: Sequence[ResidualBlock], runs: Iterable[Mapping[str, npt.NDArray[Any]]]
) -> list[float]:
    """The block influence of each block over ``runs``, each the tensors ``entry`` and ``exit`` of all blocks by name.

    The cosine is taken over the dimensions that the weights of the branch make, channels that is, everywhere else.
    """
    sums, counts = np.zeros(len(blocks)), np.zeros(len(blocks))
    for run in runs:
        for index, block in enumerate(blocks):
            x, y = (np.asarray(run[name], np.float64) for name in (block.entry, block.exit))
            over = _channels(structure, block)
            norms = np.sqrt((x * x).sum(over) * (y * y).sum(over))
            cosine = (x * y).sum(over) / np.maximum(norms, _TINY)
            sums[index] += float((1 - cosine).sum())
            counts[index] += cosine.size
    return (sums / np.maximum(counts, 1)).tolist()  # type: ignore[no-any-return]


def _channels(structure: Structure, block: ResidualBlock) -> tuple[int, ...]:
    """The dimensions of a block's result that some weight of its branch has too; the last one if there is none."""
    axes: Axes = structure.tensors.get(block.exit) or ()
    held: set[Leaf] = set()
    for number in block.calls:
        name = _weight(structure, structure.calls[number])
        held.update(leaf for axis in structure.tensors.get(name or "") or () for leaf in structure.leaves(axis))
    found = tuple(dim for dim, axis in enumerate(axes) if not held.isdisjoint(structure.leaves(axis)))
    return found or (len(axes) - 1,)


# -- choosing ---------------------------------------------------------------------------------------------------------


def choose_blocks(
    blocks: Sequence[ResidualBlock],
    scores: Sequence[float],
    count: int | None = None,
    ratio: float | None = None,
) -> list[ResidualBlock]:
    """The blocks of the lowest scores, in reading order: ``count``, or that share of all; none lies in another.

    Raises:
        TargetError: there are fewer.
        UsageError: both or neither of ``count`` and ``ratio`` are given, or one is out of range.
    """
    if (count is None) == (ratio is None):
        raise UsageError("depth: give either blocks (a number) or ratio (a share of them)")
    if ratio is not None and not 0 <= ratio < 1:
        raise UsageError(f"depth: ratio {ratio:g} is out of range: it must be at least 0 and below 1")
    if count is not None and count < 0:
        raise UsageError(f"depth: blocks {count} is out of range: it must be at least 0")
    wanted = math.floor((ratio or 0) * len(blocks) + 1e-9) if count is None else count
    chosen: list[int] = []
    gone: set[int] = set()  # calls that go
    for index in sorted(range(len(blocks)), key=lambda index: (scores[index], index)):
        calls = set(blocks[index].calls)
        if len(chosen) == wanted:
            break
        if calls.isdisjoint(gone):
            chosen.append(index)
            gone |= calls
    if len(chosen) < wanted:
        raise TargetError(
            f"depth: {wanted} blocks are asked for where {len(chosen)} residual blocks can be left out whole"
        )
    return [blocks[index] for index in sorted(chosen)]
