from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from analysed import Analysed, analyse
from onnx import TensorProto, helper, numpy_helper

from graphprune.frontends.onnx_weights import weights_of
from graphprune.score import Evidence, Magnitude, blocks
from graphprune.score.dequantize import Dequantized

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def model(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[int], domain: str = ""
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def outputs(proto: onnx.ModelProto, name: str) -> Array:
    """The value ``name`` of the graph as ONNX Runtime computes it on random inputs."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return session.run([name], {"x": np.eye(*shape, dtype=np.float32)})[0]


def read(program: Analysed, name: str, limit: int = 1 << 20) -> Array:
    """The weight as the reader puts it together."""
    stored = program.model.graph.initializers[name].const_value
    assert stored is not None

    def weights(wanted: str) -> Any:
        tensor = program.model.graph.initializers[wanted].const_value
        assert tensor is not None
        return blocks(tensor.numpy(), limit)

    pieces = [block.values.reshape(-1) for block in Dequantized(program.structure, weights)(name)]
    return np.concatenate(pieces)


@pytest.mark.parametrize("limit", [1, 4, 1000])
@pytest.mark.parametrize("kind", ["tensor", "axis 0", "axis 1", "blocks"])
def test_dequantize_linear_as_onnx_runtime_does_it(kind: str, limit: int) -> None:
    q = RNG.integers(-128, 128, (6, 8), np.int8)
    kinds = {"tensor": ((), 0, 0), "axis 0": ((6,), 0, 0), "axis 1": ((8,), 1, 0), "blocks": ((6, 2), 1, 4)}
    shape, axis, size = kinds[kind]
    scale = RNG.uniform(0.01, 0.1, shape).astype(np.float32)
    zero = RNG.integers(-9, 9, shape).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dequantize", axis=axis, block_size=size),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    proto = model(nodes, {"q": q, "s": scale, "z": zero}, [6, 6])
    program = analyse(proto)
    np.testing.assert_allclose(read(program, "q", limit), outputs(proto, "w").reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_as_onnx_runtime_computes_with_them(bits: int, zeros: bool) -> None:
    rows, inputs, size = 6, 64, 32
    count = inputs // size
    packed = RNG.integers(0, 256, (rows, count, size * bits // 8)).astype(np.uint8)
    constants = {"q": packed, "s": RNG.uniform(0.01, 0.1, rows * count).astype(np.float32)}
    if zeros:
        constants["z"] = RNG.integers(0, 256, rows * math.ceil(count * bits / 8)).astype(np.uint8)
    attributes = {"N": rows, "K": inputs, "bits": bits, "block_size": size}
    node = helper.make_node(
        "MatMulNBits", ["x", *constants], ["y"], name="product", domain="com.microsoft", **attributes
    )
    proto = model([node], constants, [64, 64], "com.microsoft")
    program = analyse(proto)
    found = read(program, "q").reshape(rows, inputs)
    np.testing.assert_allclose(found.T, outputs(proto, "y"), rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_the_numbers_that_the_integers_stand_for() -> None:
    q = RNG.integers(-128, 128, (6, 8), np.int8)
    scale = np.geomspace(0.001, 1, 8).astype(np.float32)
    last = RNG.standard_normal((8, 3)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], name="dequantize", axis=1),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="second"),
    ]
    program = analyse(model(nodes, {"q": q, "s": scale, "v": last}, [6, 6]))
    (group,) = program.structure.groups
    found = Magnitude(1, "sum").score(Evidence(program.structure, weights_of(program.model)))[group.leaf]
    expected = np.abs(q.astype(np.float64) * scale).sum(0) + np.abs(last).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
