from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import corpus, fingerprint, parse, run, session

from graphprune.errors import ModelError
from graphprune.frontends.contrib_shapes import SHAPES, STANDARD
from graphprune.frontends.onnx_shapes import clear_shapes, infer_shapes

WEIGHTS = {
    "c8": np.ones(8, np.float32),
    "w88": np.ones((8, 8), np.float32),
    "w824": np.ones((8, 24), np.float32),
    "b24": np.ones(24, np.float32),
    "kernel": np.ones((6, 8, 3, 3), np.float32),
    "scale": np.array(0.5, np.float32),
    "zero": np.array(3, np.uint8),
    "u88": np.ones((8, 8), np.uint8),
    "q824": np.ones((8, 24), np.uint8),
    "cache": np.ones((16, 4), np.float32),
    "positions": np.arange(5)[None],
    "words": np.ones((20, 8), np.float32),
    "past": np.ones((2, 2, 0, 8), np.float32),
    "last": np.array([4, 4], np.int32),
    "total": np.array(5, np.int32),
    "blocks": np.ones((6, 1, 16), np.uint8),
    "scales": np.ones(6, np.float32),
}

OPERATORS = {
    "Gelu": ("float[2, 5, 8]", "Gelu(x)"),
    "FastGelu": ("float[2, 5, 8]", "FastGelu(x, c8)"),
    "QuickGelu": ("float[2, 5, 8]", "QuickGelu(x)"),
    "BiasGelu": ("float[2, 5, 8]", "BiasGelu(x, c8)"),
    "FusedConv": (
        "float[2, 8, 9, 9]",
        'FusedConv<activation = "Relu", pads = [1, 1, 1, 1], strides = [2, 2]>(x, kernel)',
    ),
    "FusedGemm": ("float[2, 8]", 'FusedGemm<transB = 1, activation = "Relu">(x, w88, c8)'),
    "FusedMatMul": ("float[2, 3, 8]", "FusedMatMul<transB = 1, alpha = 2.0>(x, w88)"),
    "FusedMatMul of transposed": ("float[2, 8, 3]", "FusedMatMul<transA = 1>(x, w88)"),
    "SkipLayerNormalization": ("float[2, 5, 8]", "SkipLayerNormalization(x, x, c8, c8, c8)"),
    "SkipSimplifiedLayerNormalization": ("float[2, 5, 8]", "SkipSimplifiedLayerNormalization(x, x, c8)"),
    "EmbedLayerNormalization": ("int32[2, 5]", "EmbedLayerNormalization(x, , words, words, , c8, c8)"),
    "Attention": ("float[2, 5, 8]", "Attention<num_heads = 2>(x, w824, b24)"),
    "MultiHeadAttention": ("float[2, 5, 8]", "MultiHeadAttention<num_heads = 2>(x, x, x)"),
    "GroupQueryAttention": (
        "float[2, 5, 32]",
        "GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(x, k, k, past, past, last, total)",
    ),
    "RotaryEmbedding": ("float[1, 5, 8]", "RotaryEmbedding(x, positions, cache, cache)"),
    "QLinearAdd": ("uint8[3, 8, 8]", "QLinearAdd(x, scale, zero, u88, scale, zero, scale, zero)"),
    "QLinearMul": ("uint8[8, 8]", "QLinearMul(x, scale, zero, u88, scale, zero, scale, zero)"),
    "QLinearSigmoid": ("uint8[2, 8]", "QLinearSigmoid(x, scale, zero, scale, zero)"),
    "QLinearLeakyRelu": ("uint8[2, 8]", "QLinearLeakyRelu(x, scale, zero, scale, zero)"),
    "QLinearSoftmax": ("uint8[2, 8]", "QLinearSoftmax<opset = 13>(x, scale, zero, scale, zero)"),
    "QLinearConcat": ("uint8[2, 8]", "QLinearConcat<axis = 0>(scale, zero, x, scale, zero, u88, scale, zero)"),
    "QLinearGlobalAveragePool": ("uint8[2, 8, 4, 4]", "QLinearGlobalAveragePool(x, scale, zero, scale, zero)"),
    "QLinearAveragePool": (
        "uint8[2, 8, 6, 6]",
        "QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x, scale, zero, scale, zero)",
    ),
    "QLinearAveragePool, channels last": (
        "uint8[2, 6, 6, 8]",
        "QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2], channels_last = 1>(x, scale, zero, scale, zero)",
    ),
    "QAttention": ("uint8[2, 5, 8]", "QAttention<num_heads = 2>(x, q824, b24, scale, scale, , zero, zero)"),
    "QGemm": ("uint8[2, 8]", "QGemm(x, scale, zero, u88, scale, zero, , scale, zero)"),
    "DynamicQuantizeMatMul": ("float[2, 8]", "DynamicQuantizeMatMul(x, u88, scale)"),
    "MatMulIntegerToFloat": ("uint8[2, 8]", "MatMulIntegerToFloat(x, u88, scale, scale)"),
    "MatMulNBits": ("float[2, 5, 32]", "MatMulNBits<K = 32, N = 6, bits = 4, block_size = 32>(x, blocks, scales)"),
}
"""An operand and a call, by operator; the outputs are what ONNX Runtime says they are."""

OUTPUTS = {"GroupQueryAttention": 3, "SkipLayerNormalization": 4, "EmbedLayerNormalization": 2}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_onnxruntime_have_the_shapes_that_it_gives(name: str) -> None:
    operand, call = OPERATORS[name]
    results = [f"y{position}" for position in range(OUTPUTS.get(name, 1))]
    shown = [result for result in results if name != "SkipLayerNormalization" or result in ("y0", "y3")]
    lines = [f"{', '.join(results)} = com.microsoft.{call}"]
    if name == "GroupQueryAttention":
        lines.insert(0, "k = Slice(x, from, to, axis)")
    model = parse(
        f"agraph ({operand} x) => ({', '.join(shown)}) {{ {chr(10).join(lines)} }}",
        13,
        **WEIGHTS,
        **{"from": np.array([0]), "to": np.array([16]), "axis": np.array([2])},
    )
    infer_shapes(model)
    kind = model.graph.inputs[0].dtype.numpy()
    x = np.ones(model.graph.inputs[0].shape.numpy(), kind)
    for value, array in zip(model.graph.outputs, run(model, {"x": x}), strict=True):
        known = [dim if isinstance(dim, int) else size for dim, size in zip(value.shape, array.shape, strict=True)]
        assert known == list(array.shape), value.name
        assert value.dtype.numpy() == array.dtype
        assert value.shape.is_static() or name == "GroupQueryAttention"


def test_symbolic_names_pass_through_operators_of_onnxruntime() -> None:
    model = parse(
        """agraph (float[N, T, 8] x) => (z) {
        a = com.microsoft.Attention<num_heads = 2>(x, w824, b24)
        s, m, v, sum = com.microsoft.SkipLayerNormalization(a, x, c8, c8)
        g = com.microsoft.Gelu(sum)
        f = com.microsoft.FusedMatMul(g, w824)
        z = Relu(f) }""",
        **WEIGHTS,
    )
    infer_shapes(model)
    found = [str(node.outputs[0].shape) for node in model.graph]
    assert found == ["[N,T,8]", "[N,T,8]", "[N,T,8]", "[N,T,24]", "[N,T,24]"]


def test_operators_without_a_schema_in_old_operator_sets() -> None:
    lines = "y = LayerNormalization(x, c8)\n z = SimplifiedLayerNormalization(y, c8)"
    model = parse(f"agraph (float[N, 8] x) => (z) {{ {lines} }}", 11, **WEIGHTS)
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[N,8]"


def test_unknown_dimensions_get_no_invented_names() -> None:
    model = parse("agraph (float[N, 1, 9] x) => (float[N, 1, M] y) { a = NonZero(x)\n y = Conv(x, k) }",
                  k=np.ones((1, 1, 2), np.float32))  # fmt: skip
    infer_shapes(model)
    assert str(model.graph[0].outputs[0].shape) == "[3,None]"
    assert str(model.graph.outputs[0].shape) == "[N,1,8]"


def test_dimensions_written_as_minus_one_are_unknown() -> None:
    model = parse("agraph (float[2, 3, 9, 9] x) => (float[2, 1, 8, 8] y) { y = Conv(x, k) }",
                  k=np.ones((1, 3, 2, 2), np.float32))  # fmt: skip
    model.graph.inputs[0].shape = ir.Shape([-1, 3, -1, 9])
    model.graph.outputs[0].shape = ir.Shape([-1, 1, -1, -1])
    infer_shapes(model)
    assert str(model.graph.inputs[0].shape) == "[None,3,None,9]"
    assert str(model.graph.outputs[0].shape) == "[None,1,None,8]"


SLICED = """agraph (float[N, T, 24] x) => (y) {
  s = Shape(x)
  b = Slice<axes = [0], starts = [0], ends = [2]>(s)
  t = Concat<axis = 0>(b, four, six)
  r = Reshape(x, t)
  p = Transpose<perm = [0, 2, 1, 3]>(r)
  m = ReduceMean<axes = [3], keepdims = 0>(p)
  u = Shape(m)
  v = Gather<axis = 0>(u, one)
  w = Concat<axis = 0>(v, minus)
  y = Reshape(m, w)
}"""


def test_shapes_go_on_behind_targets_that_onnx_does_not_follow() -> None:
    model = parse(SLICED, 9, four=np.array([4]), six=np.array([6]), one=np.array([1]), minus=np.array([-1]))
    assert infer_shapes(model)
    found = {value.name: str(value.shape) for node in model.graph for value in node.outputs}
    assert (found["r"], found["p"], found["m"]) == ("[N,T,4,6]", "[N,4,T,6]", "[N,4,T]")
    assert found["y"] == "[4,None]"
    assert not infer_shapes(model)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [([0, -1], "[N,192]"), ([-1, 6, 8], "[None,6,8]"), ([2, 0, -1], "[2,24,None]"), ([0, 3, 8, 8], "[N,3,8,8]")],
)
def test_zero_and_minus_one_in_targets(target: list[int], wanted: str) -> None:
    model = parse("agraph (float[N, 24, 8] x) => (y) { y = Reshape(x, t) }", t=np.array(target))
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == wanted


LOOP = """agraph (float[N, 8] x) => (y, z) <int64 trips = {3}, bool go = {1}> {
  y, z = Loop (trips, go, x, x) <body = step (int64 i, bool c, float s, float g) => (bool c2, float s2, float g2) {
    c2 = Identity(c)
    s2 = Relu(s)
    g2 = Concat<axis = 0>(g, s)
  }>
}"""


def test_loops_keep_the_shapes_that_their_body_keeps() -> None:
    model = parse(LOOP)
    body = model.graph[0].attributes["body"].as_graph()
    for value in (*body.inputs[2:], *body.outputs[1:]):
        value.shape = None
    infer_shapes(model)
    assert [str(value.shape) for value in model.graph.outputs] == ["[N,8]", "[None,8]"]
    assert [str(value.shape) for value in body.inputs[2:]] == ["[N,8]", "[None,8]"]
    assert [str(node.outputs[0].shape) for node in body][1:] == ["[N,8]", "[None,8]"]


def test_branches_and_scans_have_shapes_inside() -> None:
    model = parse("""agraph (bool b, float[N, 5, 8] x) => (y, z) {
      y = If (b) <then_branch = first () => (p) { q = Relu(x)\n p = Neg(q) },
                  else_branch = second () => (r) { r = Exp(x) }>
      k = ReduceSum<keepdims = 0>(x, axis)
      f, z = Scan<num_scan_inputs = 1, body = step (s, e) => (t, o) {
        t = Add(s, e)\n o = Neg(t) }, scan_input_axes = [1], scan_output_axes = [1]>(k, x)
    }""", axis=np.array([1]))  # fmt: skip
    infer_shapes(model)
    assert [str(value.shape) for value in model.graph.outputs] == ["[N,5,8]", "[N,5,8]"]
    relu = model.graph[0].attributes["then_branch"].as_graph()[0]
    assert str(relu.outputs[0].shape) == "[N,5,8]"


def stored(model: ir.Model) -> ir.Model:
    """Add what inference cannot know: the shape behind an operator of somebody's own."""
    value = model.graph[1].outputs[0]
    value.shape, value.type = ir.Shape([2, 4]), ir.TensorType(ir.DataType.FLOAT)
    return model


UNKNOWN = "agraph (float[2, 8] x) => (y) { r = Relu(x)\n a = local.mine(r)\n y = Neg(a) }"


def test_stored_shapes_fill_the_gaps_of_inference() -> None:
    model = stored(parse(UNKNOWN))
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[2,4]"


def test_stored_shapes_that_contradict_are_not_believed() -> None:
    model = stored(parse(UNKNOWN))
    model.graph.inputs[0].shape = ir.Shape(["N", 8])
    model.graph[0].outputs[0].shape = ir.Shape([2, 8])
    infer_shapes(model)
    assert str(model.graph[0].outputs[0].shape) == "[N,8]"
    assert model.graph.outputs[0].shape is None


def test_weights_are_not_read(tmp_path: Path) -> None:
    model = parse("agraph (float[N, 64] x) => (y) { y = MatMul(x, w) }")
    absent = ir.ExternalTensor(
        "absent.bin", 0, 1 << 20, ir.DataType.FLOAT, shape=ir.Shape((64, 4096)), name="w", base_dir=tmp_path
    )
    model.graph.register_initializer(ir.Value(name="w", const_value=absent))
    model.graph[0].replace_input_with(1, model.graph.initializers["w"])
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[N,4096]"
    assert str(model.graph.initializers["w"].shape) == "[64,4096]"


def test_a_graph_that_inference_rejects_is_an_error() -> None:
    model = parse("agraph (float[2] x) => (y) { y = Relu(x) }")
    del model.opset_imports[""]
    with pytest.raises(ModelError, match="ONNX shape inference rejects the graph"):
        infer_shapes(model)


def test_shapes_can_be_forgotten_and_found_again() -> None:
    model = parse(SLICED, 9, four=np.array([4]), six=np.array([6]), one=np.array([1]), minus=np.array([-1]))
    infer_shapes(model)
    before = fingerprint(model)
    clear_shapes(model)
    assert all(node.outputs[0].shape is None for node in list(model.graph)[:-1])
    infer_shapes(model)
    assert fingerprint(model) == before


@pytest.mark.corpus
@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_inferred_dimensions_are_those_of_onnxruntime(path: Path) -> None:
    model = ir.load(path)
    before = ir.load(path)
    infer_shapes(model)
    for given, value in zip(before.graph.inputs, model.graph.inputs, strict=True):
        assert [dim for dim in given.shape if not isinstance(dim, int) or dim >= 0] == [
            dim for dim, old in zip(value.shape, given.shape, strict=True) if not isinstance(old, int) or old >= 0
        ]
    for value, found in zip(model.graph.outputs, session(path).get_outputs(), strict=True):
        for dim, other in zip(value.shape, found.shape, strict=True):
            assert not isinstance(dim, int) or not isinstance(other, int) or dim == other


def test_two_thousand_nodes_take_a_fraction_of_a_second() -> None:
    lines = [f"x{k + 1} = {'com.microsoft.Gelu' if k % 7 == 0 else 'Add'}(x{k}{'' if k % 7 == 0 else ', c8'})"
             for k in range(2000)]  # fmt: skip
    model = parse(f"agraph (float[N, 8] x0) => (x2000) {{ {chr(10).join(lines)} }}", **WEIGHTS)
    best = min(timed(model) for _ in range(3))
    assert str(model.graph.outputs[0].shape) == "[N,8]"
    assert best < 0.5


def timed(model: ir.Model) -> float:
    start = time.process_time()
    infer_shapes(model)
    return time.process_time() - start


def test_the_tables_name_standard_operators_and_parse() -> None:
    assert not set(SHAPES) & set(STANDARD)
    for like in STANDARD.values():
        assert onnx.defs.has(like.op_type)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 7, 1), (-1, -100, -1), (5, 0, -2), (1, 100, 3), (-3, 100, 2), (6, 6, -1), (100, -100, -3), (0, 0, -1)],
)
def test_slices_have_the_lengths_of_onnxruntime(start: int, end: int, step: int) -> None:
    operands = {"s": np.array([start]), "e": np.array([end]), "a": np.array([-1]), "k": np.array([step])}
    model = parse("agraph (float[N, 7] x) => (y) { y = Slice(x, s, e, a, k) }", **operands)
    infer_shapes(model)
    length = run(model, {"x": np.ones((2, 7), np.float32)})[0].shape[1]
    assert list(model.graph.outputs[0].shape) == [ir.SymbolicDim("N"), length]


def test_an_empty_dimension_can_be_walked_backwards() -> None:
    """ONNX's own inference ends the process here."""
    operands = {"s": np.array([-1]), "e": np.array([-100]), "a": np.array([0]), "k": np.array([-1])}
    model = parse("agraph (float[0, 7] x) => (y) { y = Slice(x, s, e, a, k) }", **operands)
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[0,7]"
