"""Patterns that exporters write, each of which once locked axes that may be cut."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import parse

import graphprune
from graphprune.cost import CostModel
from graphprune.frontends.onnx_reader import read
from graphprune.ledger import ledger
from graphprune.passes import canonicalize

HEADS, WIDTH = 4, 6


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _pruned(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights after a verified cut by half."""
    result = graphprune.prune(model, ratio=0.5)
    assert result.verified
    assert not result.undeclared
    assert isinstance(result.model, ir.Model)
    return {name: tuple(value.const_value.shape) for name, value in result.model.graph.initializers.items()}  # type: ignore[union-attr]


def test_heads_merged_with_a_symbolic_batch_are_free() -> None:
    model = parse(
        """agraph (float[7, batch, 5] x) => (float[7, batch, 5] y) {
            p = MatMul(x, w)
            shape = Shape(x)
            b = Gather<axis = 0>(shape, one)
            bh = Mul(b, heads)
            split = Concat<axis = 0>(seven, bh, width)
            h = Reshape(p, split)
            t = Transpose<perm = [1, 2, 0]>(h)
            r = Relu(t)
            u = Transpose<perm = [2, 0, 1]>(r)
            merge = Concat<axis = 0>(seven, b, all)
            m = Reshape(u, merge)
            y = MatMul(m, o)
        }""",
        **_weights(w=(5, HEADS * WIDTH), o=(HEADS * WIDTH, 5)),
        one=np.array([1]),
        heads=np.array([HEADS]),
        seven=np.array([7]),
        width=np.array([WIDTH]),
        all=np.array([HEADS * WIDTH]),
    )
    shapes = _pruned(model)
    assert (shapes["w"], shapes["o"]) == ((5, 2 * 3), (2 * 3, 5))


def test_a_scale_computed_from_a_width_leaves_the_width_free() -> None:
    model = parse(
        """agraph (float[batch, seq, 5] x) => (float[batch, seq, seq] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            shape = Shape(q)
            d = Gather<axis = 0>(shape, last)
            f = Cast<to = 1>(d)
            s = Sqrt(f)
            n = Div(q, s)
            t = Transpose<perm = [0, 2, 1]>(k)
            y = MatMul(n, t)
        }""",
        **_weights(wq=(5, 8), wk=(5, 8)),
        last=np.array(-1),
    )
    shapes = _pruned(model)
    assert shapes["wq"] == shapes["wk"] == (5, 4)


def test_a_scale_is_written_out_where_only_the_reading_knows_the_width() -> None:
    model = parse(
        """agraph (float[batch, seq, 8] x, float[batch, 1, 1] mask) => (float[batch, heads, seq, seq] y) {
            e = Mul(x, mask)
            q = MatMul(e, wq)
            shape = Shape(q)
            b = Slice(shape, zero, two)
            split = Concat<axis = 0>(b, heads, rest)
            h = Reshape(q, split)
            t = Transpose<perm = [0, 2, 1, 3]>(h)
            k = Transpose<perm = [0, 2, 3, 1]>(h)
            inner = Shape(t)
            d = Gather<axis = 0>(inner, last)
            f = Cast<to = 1>(d)
            s = Sqrt(f)
            scores = MatMul(t, k)
            y = Div(scores, s)
        }""",
        **_weights(wq=(8, HEADS * WIDTH)),
        zero=np.array([0]),
        two=np.array([2]),
        heads=np.array([HEADS]),
        rest=np.array([-1]),
        last=np.array(-1),
    )
    assert _pruned(model)["wq"] == (8, HEADS * WIDTH // 2)


def test_a_strided_lookup_of_every_position_is_movement() -> None:
    index = np.arange(2 * 6).reshape(2, 6, 1, 1)
    swapped = np.arange(2 * 6).reshape(2, 6).T.copy()
    model = parse(
        """agraph (float[2, 3, 8, 8] x) => (float[5, 2] y) {
            c = Conv(x, w)
            p = GlobalAveragePool(c)
            f = Reshape(p, flat)
            s = Gather(f, index)
            g = Reshape(s, flat)
            t = Gather(g, swapped)
            y = MatMul(o, t)
        }""",
        **_weights(w=(6, 3, 3, 3), o=(5, 6)),
        flat=np.array([-1]),
        index=index,
        swapped=swapped,
    )
    shapes = _pruned(model)
    assert (shapes["w"], shapes["o"]) == ((3, 3, 3, 3), (5, 3))


def test_another_name_for_a_known_size_is_no_news() -> None:
    model = parse(
        """agraph (float[7, batch, 5] x) => (float[7, batch, 5] y) <float[7, unk0, 24] p, float[7, unk1, 6] h> {
            p = MatMul(x, w)
            shape = Shape(x)
            b = Gather<axis = 0>(shape, one)
            bh = Mul(b, heads)
            split = Concat<axis = 0>(seven, bh, width)
            h = Reshape(p, split)
            r = Relu(h)
            merge = Concat<axis = 0>(seven, b, all)
            m = Reshape(r, merge)
            y = MatMul(m, o)
        }""",
        **_weights(w=(5, HEADS * WIDTH), o=(HEADS * WIDTH, 5)),
        one=np.array([1]),
        heads=np.array([HEADS]),
        seven=np.array([7]),
        width=np.array([WIDTH]),
        all=np.array([HEADS * WIDTH]),
    )
    assert _pruned(model)["w"] == (5, 2 * 3)


@pytest.mark.parametrize(
    "window",
    [
        "Conv<kernel_shape = [1, 1]>(h, v)",
        "Conv<pads = [1, 1, 1, 1]>(h, v3)",
        'Conv<auto_pad = "SAME_UPPER">(h, v3)',
        "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h)",
    ],
)
def test_a_window_that_keeps_space_keeps_its_symbols(window: str) -> None:
    model = parse(
        f"""agraph (float[b, 3, H, W] x) => (float[b, 5, 1] y) {{
            h = Conv<strides = [2, 2]>(x, w)
            c = {window}
            shape = Shape(h)
            n = Gather<axis = 0>(shape, zero)
            rows = Gather<axis = 0>(shape, two)
            columns = Gather<axis = 0>(shape, three)
            places = Mul(rows, columns)
            heads = Mul(n, four)
            target = Concat<axis = 0>(heads, width, places)
            t = Reshape(c, target)
            s = ReduceSum<keepdims = 1>(t, last)
            back = Concat<axis = 0>(n, all, one)
            u = Reshape(s, back)
            y = MatMul(o, u)
        }}""",
        **_weights(w=(24, 3, 3, 3), v=(24, 24, 1, 1), v3=(24, 24, 3, 3), o=(5, 24)),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        three=np.array([3]),
        four=np.array([HEADS]),
        width=np.array([WIDTH]),
        all=np.array([HEADS * WIDTH]),
        last=np.array([2]),
    )
    assert _pruned(model)["o"] == (5, 2 * 3)


def test_the_interface_is_to_blame_before_a_kernel_of_another_operator() -> None:
    model = parse(
        """agraph (float[1, 4, 8] x, float x0) => (float[1, 4, 6] y, float[1, 5, 1] z) {
            k = Mul(w, x0)
            y = Conv(x, k)
            h = Conv(x, v)
            r = GlobalAveragePool(h)
            z = Conv(r, u)
        }""",
        **_weights(w=(4, 4, 3), v=(6, 4, 1), u=(5, 6, 1)),
    )
    canonicalize(model)
    reasons = {entry.op for entry in ledger(CostModel(read(model)))}
    assert reasons <= {"graph input", "graph output", ""}


@pytest.mark.parametrize("opset", [11, 17])
def test_channels_that_pass_through_a_sequence_are_free(opset: int) -> None:
    model = parse(
        """agraph (float[b, 5] x) => (float[b, 3] y) {
            h = MatMul(x, w)
            parts = SplitToSequence<axis = 1>(h, lengths)
            p = SequenceAt(parts, zero)
            q = SequenceAt(parts, last)
            r = Relu(p)
            empty = SequenceEmpty()
            one = SequenceInsert(empty, q)
            two = SequenceInsert(one, r, zero)
            c = ConcatFromSequence<axis = 1>(two)
            halves = SplitToSequence<axis = 1>(c, half)
            e = SequenceAt(halves, zero)
            f = SequenceAt(halves, last)
            pair = SequenceConstruct(f, e)
            d = ConcatFromSequence<axis = -1>(pair)
            y = MatMul(d, o)
        }""",
        opset,
        **_weights(w=(5, 12), o=(12, 3)),
        lengths=np.array([4, 8]),
        half=np.array(6),
        zero=np.array(0),
        last=np.array(-1),
    )
    shapes = _pruned(model)
    assert (shapes["w"], shapes["o"]) == ((5, 6), (6, 3))


def test_a_quotient_of_symbolic_sizes_is_a_number() -> None:
    model = parse(
        """agraph (float[b, 5] x) => (float[b, 4, 5] y) {
            h = MatMul(x, w)
            many = Shape(x)
            b = Gather<axis = 0>(many, zero)
            four = Mul(b, windows)
            count = Div(four, b)
            values = Concat<axis = 0>(one, count)
            hot = OneHot<axis = -1>(one, rank, values)
            repeats = Reshape(hot, flat)
            u = Unsqueeze(h, one)
            t = Tile(u, repeats)
            y = MatMul(t, o)
        }""",
        **_weights(w=(5, 8), o=(8, 5)),
        zero=np.array([0]),
        one=np.array([1]),
        windows=np.array([4]),
        rank=np.array([3]),
        flat=np.array([-1]),
    )
    assert _pruned(model)["w"] == (5, 4)
