"""Control flow and local functions: If, Loop and Scan bodies that read the graph around them, model functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphprune.models.reference.builder import Value
from random_graphs.tape import MAP, TOKENS, VECTOR, Tape, block

__all__: list[str] = []


Typed = Sequence[tuple[Value, int]]


def body(t: Tape, inputs: Typed, build: Callable[[], Typed]) -> onnx.GraphProto:
    """Return a graph of what ``build`` appends; its weights lie inside it, or half the time in the graph around it."""
    nodes, initializers, cache = t.nodes, t.initializers, dict(t.cache)
    inside = t.chance(0.5)
    t.nodes, t.initializers = [], [] if inside else initializers
    results = build()
    held = t.initializers if inside else []
    infos = [
        [helper.make_tensor_value_info(value.name, kind, value.shape) for value, kind in values]
        for values in (inputs, results)
    ]
    graph = helper.make_graph(t.nodes, t.fresh("body"), infos[0], infos[1], held)
    t.nodes, t.initializers = nodes, initializers
    t.cache.clear()
    t.cache.update(cache)
    return graph


@block(MAP)
def if_branches(t: Tape, x: Value) -> Value:
    """If on a value computed from the input: each branch has its own layer, both give the same channels."""
    c = t.width()
    total = t.reduce("ReduceSum", x, 0, 1, 2, 3, keepdims=False)
    condition = t.op("Greater", total, t.scalar(0.0), shape=())

    def branch(kernel: int) -> Callable[[], Typed]:
        return lambda: [(t.act(t.conv(x, c, kernel)), t.elem_type)]

    bodies = {"then_branch": body(t, [], branch(1)), "else_branch": body(t, [], branch(3))}
    return t.op("If", condition, shape=(x.shape[0], c, *x.shape[2:]), **bodies)


@block(VECTOR)
def loop_state(t: Tape, x: Value) -> Value:
    """Loop: the same layer applied a fixed number of times to a carried value."""
    trips = t.constant(np.asarray(t.pick([2, 3]), np.int64), "trips")
    going = t.constant(np.asarray(True), "going")
    step, state, on = Value(t.fresh("step"), ()), Value(t.fresh("state"), x.shape), Value(t.fresh("on"), ())

    def build() -> Typed:
        y = t.add(state, t.act(t.dense(state, x[1])))
        return [(t.op("Identity", on, shape=()), TensorProto.BOOL), (y, t.elem_type)]

    inputs = [(step, TensorProto.INT64), (on, TensorProto.BOOL), (state, t.elem_type)]
    return t.op("Loop", trips, going, x, shape=x.shape, body=body(t, inputs, build))


@block(TOKENS)
def scan_tokens(t: Tape, x: Value) -> Value:
    """Scan: a plain recurrence over time, its state and what it emits of different widths."""
    t.need(t.static(x, 0))
    hidden, emitted = t.pick([4, 6]), t.width()
    n, length = x[0], x.shape[1]
    state, token = Value(t.fresh("state"), (n, hidden)), Value(t.fresh("token"), (n, x[2]))

    def build() -> Typed:
        new = t.op("Tanh", t.add(t.dense(token, hidden), t.dense(state, hidden)))
        return [(new, t.elem_type), (t.act(t.dense(new, emitted)), t.elem_type)]

    graph = body(t, [(state, t.elem_type), (token, t.elem_type)], build)
    start = t.constant(np.zeros((n, hidden), t.dtype), "start")
    shapes = [(n, hidden), (length, n, emitted)]
    outputs = t.ops("Scan", start, t.transpose(x, 1, 0, 2), shapes=shapes, body=graph, num_scan_inputs=1)
    return t.transpose(outputs[1], 1, 0, 2)


@block(VECTOR)
def local_function(t: Tape, x: Value) -> Value:
    """A function of the model, called twice with different weights."""
    domain, name = "graphprune.test", t.fresh("Layer").replace(".", "_")
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    t.functions.append(
        helper.make_function(domain, name, ["x", "w", "b"], ["z"], nodes, [helper.make_opsetid("", t.opset)])
    )
    for _ in range(2):
        c = t.width()
        x = t.op(name, x, t.weight(c, x[1]), t.weight(c, name="bias"), shape=(x.shape[0], c), domain=domain)
    return x
