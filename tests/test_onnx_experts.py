"""Experts in ONNX graphs whose routing is spelled out: expected is a router whose bias closes those that went."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from analysed import analyse
from onnx import numpy_helper

import graphprune

EXPERTS, BEST, TOKENS, WIDTH, INNER = 6, 2, 29, 8, 5
SIZES = {
    "into": (4, WIDTH),
    "router": (WIDTH, EXPERTS),
    "bias": (EXPERTS,),
    "up": (EXPERTS, WIDTH, INNER),
    "down": (EXPERTS, INNER, WIDTH),
    "out": (WIDTH, 3),
}
NUMBERS = {"k": [BEST], "last": [-1], "one": [1], "depth": [EXPERTS], "flags": [0, 1]}

START = """
    h = MatMul(x, into)
    scores = MatMul(h, router)
    logits = Add(scores, bias)
    chances = Softmax<axis = -1>(logits)
    values, places = TopK<axis = -1>(chances, k)
"""
CHOSEN = """
    w1 = Gather(up, places)
    w2 = Gather(down, places)
    a = Einsum<equation = "tc,tkcf->tkf">(h, w1)
    b = Relu(a)
    c = Einsum<equation = "tkf,tkfc->tkc">(b, w2)
    weights = Unsqueeze(values, last)
    d = Mul(c, weights)
    e = ReduceSum<keepdims = 0>(d, one)
"""
DENSE = """
    a = Einsum<equation = "tc,ecf->tef">(h, up)
    b = Relu(a)
    c = Einsum<equation = "tef,efc->tec">(b, down)
    e = Einsum<equation = "tec,te->tc">(c, weights)
"""
SCATTERED = """
    nothing = Sub(chances, chances)
    weights = ScatterElements<axis = -1>(nothing, places, values)
"""
ONE_HOT = """
    known = OneHot(places, depth, flags)
    kinds = Cast<to = 1>(known)
    column = Unsqueeze(values, last)
    weighed = Mul(kinds, column)
    weights = ReduceSum<keepdims = 0>(weighed, one)
"""
LOOKED_UP = """
    best = ArgMax<axis = -1, keepdims = 1>(logits)
    value = GatherElements<axis = -1>(chances, best)
    nothing = Sub(chances, chances)
    weights = ScatterElements<axis = -1>(nothing, best, value)
"""
ROUTES = {
    "chosen": START + CHOSEN,
    "scattered": START + SCATTERED + DENSE,
    "one hot": START + ONE_HOT + DENSE,
    "best one": START + LOOKED_UP + DENSE,
}
END = """
    f = Add(h, e)
    y = MatMul(f, out)
"""


def model(body: str, outputs: str = "float[29, 3] y") -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SIZES.items()}
    text = f"agraph (float[{TOKENS}, 4] x) => ({outputs}) {{{body}}}"
    made = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> {text}')
    for name, array in [*weights.items(), *((name, np.array(values)) for name, values in NUMBERS.items())]:
        if any(name in node.input for node in made.graph.node):
            made.graph.initializer.append(numpy_helper.from_array(array, name))
    for number, node in enumerate(made.graph.node):
        node.name = f"{node.op_type}{number}"
    return made


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("route", ROUTES)
def test_a_removed_expert_is_never_selected(route: str) -> None:
    proto = model(ROUTES[route] + END)
    group = next(group for group in analyse(proto).structure.groups if group.role == "expert")
    assert {str(place) for place in group.slices} == {"router:1", "bias:0", "up:0", "down:0"}
    result = graphprune.prune(proto, units={"expert": 0.5}, criterion="random")
    assert result.verified
    assert result.plan is not None
    kept = result.plan.cuts["up"][0].keep
    assert len(kept) == EXPERTS // 2
    closed = model(ROUTES[route] + END)
    for weight in closed.graph.initializer:
        if weight.name == "bias":
            bias = numpy_helper.to_array(weight).copy()
            bias[[number for number in range(EXPERTS) if number not in kept]] = -np.inf
            weight.CopyFrom(numpy_helper.from_array(bias, "bias"))
    x = np.random.default_rng(1).standard_normal((TOKENS, 4)).astype(np.float32)
    slim, expected = run(ir.to_proto(result.model), x), run(closed, x)
    np.testing.assert_allclose(slim, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(run(proto, x) - expected).max() > 0.1


def test_as_many_stay_as_a_token_takes() -> None:
    result = graphprune.prune(model(ROUTES["chosen"] + END), units={"expert": 0.95})
    assert result.verified
    assert result.plan is not None
    assert len(result.plan.cuts["up"][0].keep) == BEST


MISUSES = {
    "numbers": ("number = Cast<to = 1>(places) sum = ReduceSum(number, last) e2 = Add(e, sum)", "computed with"),
    "a condition": ("third = Equal(places, k) t = Cast<to = 1>(third) s = ReduceSum(t, last) e2 = Add(e, s)", "with"),
    "another table": ("row = Gather(out, places) s = ReduceSum(row) e2 = Add(e, s)", "computed with"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_positions_that_are_read_as_numbers_keep_all_experts(misuse: str) -> None:
    body, reason = MISUSES[misuse]
    structure = analyse(model(START + CHOSEN + body + " y = MatMul(e2, out)")).structure
    assert all(group.role != "expert" for group in structure.groups)
    assert any(reason in pin.reason for pin in structure.pins(structure.axis("up", 0)))


def test_a_result_keeps_all_experts() -> None:
    structure = analyse(model(START + CHOSEN + END, "float[29, 3] y, int64[29, 2] places")).structure
    assert "its positions are the result" in {pin.reason for pin in structure.pins(structure.axis("router", 1))}


def test_branches_keep_all_experts() -> None:
    branch = """
        total = ReduceSum<keepdims = 0>(x)
        zero = Sub(total, total)
        positive = Greater(total, zero)
        here = If (positive) <
            then_branch = yes () => (int64[29, 2] a1) { a1 = Identity(places) },
            else_branch = no () => (int64[29, 2] a2) { a2 = Identity(places) }
        >
    """
    proto = model(START + branch + CHOSEN.replace("Gather(up, places)", "Gather(up, here)") + END)
    structure = analyse(proto).structure
    assert "a result of a body" in {pin.reason for pin in structure.pins(structure.axis("router", 1))}
