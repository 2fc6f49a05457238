"""Layers on vectors [n, c]."""

from __future__ import annotations

from graphprune.models.reference.builder import Value
from random_graphs.blocks_movement import split_any, split_equal
from random_graphs.tape import VECTOR, Tape, block

__all__: list[str] = []


@block(VECTOR, weight=3)
def gemm(t: Tape, x: Value) -> Value:
    return t.act(t.dense(x, t.width()))


@block(VECTOR)
def gemm_batch_norm(t: Tape, x: Value) -> Value:
    return t.relu(t.batch_norm(t.dense(x, t.width())))


@block(VECTOR)
def gemm_transposed(t: Tape, x: Value) -> Value:
    """Gemm whose first operand is transposed."""
    out = t.width()
    weight, bias = t.weight(out, x[1]), t.weight(1, out, scale=0.1, name="bias")
    return t.act(t.op("Gemm", t.transpose(x, 1, 0), weight, bias, shape=(x.shape[0], out), transA=1, transB=1))


@block(VECTOR)
def residual_vector(t: Tape, x: Value) -> Value:
    return t.add(x, t.dense(t.act(t.dense(x, t.width())), x[1]))


@block(VECTOR)
def gated_vector(t: Tape, x: Value) -> Value:
    a, b = split_equal(t, t.dense(x, 2 * t.pick([4, 6, 8])), 2, 1)
    return t.mul(a, t.op("Sigmoid", b))


@block(VECTOR)
def maxout(t: Tape, x: Value) -> Value:
    """The largest of several pieces of each unit."""
    y = t.reshape_to(t.dense(x, 24), (x.shape[0], *t.pick([(8, 3), (12, 2), (6, 4)])))
    return t.reduce("ReduceMax", y, t.pick([1, 2]), keepdims=False)


@block(VECTOR)
def cross_features(t: Tape, x: Value) -> Value:
    """Concatenate the input with what was made of it, in any order."""
    t.need(x[1] <= 32)
    parts = [x, t.act(t.dense(x, 6)), t.act(t.dense(x, 4))]
    t.choice.shuffle(parts)
    return t.concat(parts, 1)


@block(VECTOR)
def vector_parts(t: Tape, x: Value) -> Value:
    parts = split_any(t, x, 1)
    return t.concat([t.act(part) if t.chance(0.5) else t.dense(part, 4) for part in parts], 1)


@block(VECTOR)
def outer_product(t: Tape, x: Value) -> Value:
    """Second-order features: the outer product of two projections, flattened."""
    a, b = t.dense(x, 4), t.dense(x, 5)
    y = t.matmul(t.unsqueeze(a, 2), t.unsqueeze(b, 1))
    return t.op("Flatten", y, shape=(x.shape[0], 20), axis=1) if t.chance(0.5) else t.reshape_to(y, (x.shape[0], 20), x)


@block(VECTOR)
def normalised_vector(t: Tape, x: Value) -> Value:
    norm = t.reduce("ReduceL2", x, 1)
    return t.op("Div", t.dense(x, x[1]), t.add(norm, t.scalar(0.5)))
