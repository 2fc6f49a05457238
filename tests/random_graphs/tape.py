"""The builder of random graphs: random choices of form on top of ``GraphBuilder``, and the table of blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphprune.models.reference.builder import Array, Dim, GraphBuilder, Shape, Value

__all__ = ["BLOCKS", "LONGEST", "MAP", "TOKENS", "VECTOR", "Block", "Tape", "Unfit", "block"]

MAP = "map"  # [n, c, h, w]
TOKENS = "tokens"  # [n, t, c]
VECTOR = "vector"  # [n, c]
LONGEST = 320  # more tokens than any symbolic length is run with

T = TypeVar("T")


class Unfit(Exception):
    """The block cannot follow a value of this shape, or has no form in this opset; the caller leaves it out."""


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of network part: ``build`` appends it to the tape and returns its result, of the same ``kind``."""

    name: str
    kind: str
    build: Callable[[Tape, Value], Value]
    weight: float
    since: int


BLOCKS: dict[str, Block] = {}


def block(
    kind: str, *, weight: float = 1.0, since: int = 9
) -> Callable[[Callable[[Tape, Value], Value]], Callable[[Tape, Value], Value]]:
    """Enter the decorated function into the table under its own name."""

    def enter(build: Callable[[Tape, Value], Value]) -> Callable[[Tape, Value], Value]:
        assert build.__name__ not in BLOCKS, build.__name__
        BLOCKS[build.__name__] = Block(build.__name__, kind, build, weight, since)
        return build

    return enter


@dataclass
class Tape(GraphBuilder):
    """A graph builder whose choices come from ``choice``; the flags set how constants are stored."""

    share_constants: bool = False
    constant_nodes: bool = False
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.choice = random.Random(self.seed)
        self.used: list[str] = []
        self.depth = 0
        self.cache: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    def reseed(self, seed: int) -> None:
        """Restart both sources of chance, so that a step of a recipe does not depend on the steps before it."""
        self.choice = random.Random(seed)
        self.rng = np.random.default_rng(seed)

    # choices

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``."""
        return self.choice.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``."""
        return self.choice.choice(options)

    def need(self, condition: bool) -> None:
        """Give the block up where ``condition`` does not hold."""
        if not condition:
            raise Unfit

    def static(self, x: Value, *axes: int) -> bool:
        """Return whether the sizes of ``axes`` are known."""
        return all(isinstance(x.shape[axis], int) for axis in axes)

    def divisor(self, size: int, *, low: int = 2, high: int | None = None) -> int:
        """Return a divisor of ``size`` within [low, high]; give up where there is none."""
        options = [d for d in range(low, (high or size) + 1) if size % d == 0]
        self.need(bool(options))
        return self.pick(options)

    def width(self) -> int:
        """Return a number of channels."""
        return self.pick([4, 6, 8, 8, 12, 12, 16, 16, 24])

    # constants

    def constant(self, array: Array, name: str = "constant") -> Value:
        if array.size > 32:
            return super().constant(array, name)
        key = (array.dtype.str, array.shape, array.tobytes())
        if self.share_constants and key in self.cache:
            return self.cache[key]
        if self.constant_nodes:
            value = Value(self.fresh("Constant"), array.shape)
            self.nodes.append(_constant_node(array, value.name))
        else:
            value = super().constant(array, name)
        self.cache[key] = value
        return value

    def _lists(self) -> tuple[list[Any], ...]:
        return self.nodes, self.initializers, self.inputs, self.functions, self.used

    def mark(self) -> list[int]:
        """Return a point to which ``rollback`` can return."""
        return [len(items) for items in self._lists()]

    def rollback(self, mark: list[int]) -> None:
        """Forget what was built since ``mark``."""
        for items, length in zip(self._lists(), mark, strict=True):
            del items[length:]
        self.cache.clear()

    def model(self) -> onnx.ModelProto:
        model = super().model()
        model.functions.extend(self.functions)
        return model

    # forms

    def act(self, x: Value) -> Value:
        """Apply some activation that is smooth or piecewise linear, at the core of most blocks."""
        kind = self.pick(["Relu", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "silu"])
        if kind == "silu":
            return self.mul(x, self.op("Sigmoid", x))
        return self.op(kind, x)

    def dense(self, x: Value, out: int, *, bias: bool | None = None) -> Value:
        """Apply a linear layer over the last axis, as MatMul, transposed weight or Gemm (rank two)."""
        bias = self.chance(0.8) if bias is None else bias
        bias = bias or (len(x.shape) == 2 and self.opset < 11)  # Gemm's bias is optional from opset 11
        form = self.pick(["linear", "linear", "transposed", "gemm", "gemm_plain"])
        if len(x.shape) == 2 and form == "gemm":
            return self.gemm(x, out, bias=bias)
        if len(x.shape) == 2 and form == "gemm_plain":
            operands = [self.weight(x[1], out, scale=(1.5 / x[1]) ** 0.5)]
            operands += [self.weight(out, name="bias")] if bias else []
            return self.op("Gemm", x, *operands, shape=(x.shape[0], out), alpha=0.5, beta=2.0)
        if form == "transposed":
            weight = self.transpose(self.weight(out, x[-1]), 1, 0)
            return self.linear(x, out, bias=bias, weight=weight)
        return self.linear(x, out, bias=bias)

    def reshape_to(self, x: Value, target: Shape, *sources: Value) -> Value:
        """Reshape to ``target``, spelled as a constant with zeros and -1, or computed from shapes in the graph.

        ``sources`` are values whose shapes may spell a symbolic dimension that ``x`` does not have.
        """
        here = [index < len(x.shape) and x.shape[index] == size for index, size in enumerate(target)]
        loose = [i for i, size in enumerate(target) if isinstance(size, str) and not here[i]]
        if len(loose) > 1 or self.chance(0.3):
            return self._reshape_computed(x, target, sources)
        inferred = loose[0] if loose else (self.choice.randrange(len(target)) if self.chance(0.4) else -1)
        spelled = []
        for index, size in enumerate(target):
            if index == inferred:
                spelled.append(-1)
            elif isinstance(size, str) or (here[index] and self.chance(0.4)):
                spelled.append(0)
            else:
                spelled.append(size)
        return self.reshape(x, spelled, target)

    def _reshape_computed(self, x: Value, target: Shape, sources: Sequence[Value]) -> Value:
        values = [x, *sources]
        unknown = [i for i, size in enumerate(target) if isinstance(size, str) and self._find(values, size) is None]
        self.need(len(unknown) <= 1)
        inferred = unknown[0] if unknown else (self.choice.randrange(len(target)) if self.chance(0.3) else -1)
        parts = [self.ints(-1) if i == inferred else self._spell(values, size) for i, size in enumerate(target)]
        return self.op("Reshape", x, self.concat(parts, 0), shape=target)

    def _find(self, values: Sequence[Value], size: Dim) -> tuple[Value, int] | None:
        found = [(value, axis) for value in values for axis, extent in enumerate(value.shape) if extent == size]
        return self.pick(found) if found else None

    def _spell(self, values: Sequence[Value], size: Dim) -> Value:
        """Return ``size`` as a one-element tensor: a literal, a Shape's element, or one divided or multiplied."""
        place = self._find(values, size)
        if isinstance(size, int) and (place is None or self.chance(0.5)):
            multiples = [
                (value, axis, extent)
                for value in values
                for axis, extent in enumerate(value.shape)
                if isinstance(extent, int) and extent % size == 0 and extent > size > 1
            ]
            if multiples and self.chance(0.3):
                value, axis, extent = self.pick(multiples)
                return self.op("Div", self.shape_of(value, axis), self.ints(extent // size), shape=(1,))
            return self.ints(size)
        assert place is not None
        return self.size_of(*place)

    def size_of(self, x: Value, axis: int) -> Value:
        """Return the size of ``axis`` as a one-element tensor, in one of the ways that exporters spell it."""
        form = self.pick(["gather", "scalar", "slice"] + (["start"] if self.opset >= 15 else []))
        if form == "start":
            return self.op("Shape", x, shape=(1,), start=axis, end=axis + 1)
        if form == "gather":
            return self.shape_of(x, axis)
        shape = self.op("Shape", x, shape=(len(x.shape),))
        if form == "slice":
            return self.slice(shape, 0, axis, axis + 1)
        element = self.op("Gather", shape, self.constant(np.asarray(axis, np.int64), "index"), shape=(), axis=0)
        return self.unsqueeze(element, 0)


def _constant_node(array: Array, name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
