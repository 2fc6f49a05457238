"""What enters a layer's product, times its matrix, is what comes out: for every geometry, on both hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import parse

from graphprune.calibration import Calibration
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.weight_access import get_weight
from graphprune.layers import destinations, layers
from graphprune.passes import canonicalize

RNG = np.random.default_rng(0)


def _weight(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def _check(host: Any, structure: Any, feed: Any, count: int) -> None:
    """Compare all layers of a program with what it computes."""
    found = layers(structure)
    assert len(found) == count
    (values,) = Calibration(host, [feed]).observe([name for layer in found for name in (layer.x, layer.y)])
    for layer in found:
        x, y = values[layer.x], values[layer.y]
        index = RNG.permutation(layer.form.count(y))[:40]
        weight = get_weight(host, layer.weight)
        matrix = layer.form.matrix(weight)
        made = np.einsum("ngf,gof->ngo", layer.form.rows(x, y, index), matrix)
        if layer.bias is not None:
            made = made + get_weight(host, layer.bias).reshape(matrix.shape[:2])
        assert np.allclose(made, layer.form.targets(y, index), rtol=1e-4, atol=1e-4)
        assert np.array_equal(layer.form.weight(matrix, weight), weight)
        assert layer.inputs.size == matrix.shape[2] * layer.form.groups // layer.form.taps
        assert layer.outputs.size == matrix.shape[0] * matrix.shape[1]


CONVOLUTIONS = {
    "plain": ("Conv", (6, 4, 3, 3), 6),
    "padded": ("Conv<pads=[1, 2, 0, 1]>", (6, 4, 3, 3), 6),
    "strided": ("Conv<strides=[2, 3], pads=[1, 1, 1, 1]>", (6, 4, 3, 2), 6),
    "dilated": ("Conv<dilations=[2, 1], pads=[2, 0, 2, 0]>", (6, 4, 3, 1), 6),
    "grouped": ("Conv<group=2>", (6, 2, 3, 3), 6),
    "depthwise": ("Conv<group=4, pads=[1, 1, 1, 1]>", (8, 1, 3, 3), 8),
    "same upper": ('Conv<auto_pad="SAME_UPPER", strides=[2, 2]>', (6, 4, 3, 2), 6),
    "same lower": ('Conv<auto_pad="SAME_LOWER", strides=[2, 2]>', (6, 4, 2, 3), 6),
    "transposed": ("ConvTranspose<strides=[2, 3], pads=[1, 0, 0, 1]>", (4, 6, 3, 4), 6),
    "transposed, grouped": ("ConvTranspose<group=2, strides=[2, 2], output_padding=[1, 1]>", (4, 3, 3, 3), 6),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    """Strides, dilations, groups and every kind of padding."""
    operator, shape, outputs = CONVOLUTIONS[name]
    model = parse(
        f"g (float[2, 4, 9, 8] x) => (float[n, c, h, w] y) {{ y = {operator}(x, w, b) }}",
        w=_weight(*shape),
        b=_weight(outputs),
    )
    canonicalize(model)
    _check(model, read(model), {"x": _weight(2, 4, 9, 8)}, 1)


def test_matrices() -> None:
    """Gemm in all orientations, and a MatMul with the bias that an Add of its own adds."""
    model = parse(
        """g (float[5, 7] x) => (float[4, 3] y, float[2, 5, 4] z) {
            a = Gemm<transB=1>(x, v, b) c = Gemm<transA=1, alpha=0.5>(a, u)
            y = Gemm(c, t) s = Unsqueeze(x, zero) e = Expand(s, shape) m = MatMul(e, w) z = Add(d, m) }""",
        v=_weight(4, 7),
        b=_weight(4),
        u=_weight(5, 6),
        t=_weight(6, 3),
        w=_weight(7, 4),
        d=_weight(4),
        zero=np.array([0]),
        shape=np.array([2, 5, 7]),
    )
    canonicalize(model)
    structure = read(model)
    found = {layer.weight: layer for layer in layers(structure)}
    assert found["w"].bias == "d"
    assert found["w"].y == "z"
    assert found["t"].bias is None
    _check(model, structure, {"x": _weight(5, 7)}, 4)


def test_what_is_no_layer() -> None:
    """Products of two activations, weights in front, quantised weights and sums with more than a bias are none."""
    model = parse(
        """g (float[4, 4] x) => (float[4, 4] y) {
            a = MatMul(x, x) b = MatMul(w, a) q = DequantizeLinear(i, scale) y = MatMul(b, q) }""",
        w=_weight(4, 4),
        i=np.ones((4, 4), np.int8),
        scale=np.float32(0.1),
    )
    canonicalize(model)
    assert layers(read(model)) == []


def test_destinations_of_results() -> None:
    """A result that only a sum of two activations reads goes there; one with another reader stays its own."""
    model = parse(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] b) {
            a = MatMul(x, w) s = Add(x, a) b = MatMul(s, v) y = Add(s, b) }""",
        w=_weight(4, 4),
        v=_weight(4, 4),
    )
    canonicalize(model)
    assert destinations(read(model)) == {"a": "s"}


@pytest.mark.torch
def test_layers_of_modules() -> None:
    """The same geometry from ATen's calls."""
    torch = pytest.importorskip("torch")
    from torch import nn

    from graphprune.frontends.torch_program import capture

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 6, 3, stride=2, padding=1)
            self.b = nn.Conv2d(6, 6, 3, groups=6, padding="same", bias=False)
            self.c = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1)
            self.d = nn.Linear(4, 5)

        def forward(self, x: Any) -> Any:
            return self.d(self.c(self.b(self.a(x))).mean((2, 3)))

    x = torch.randn(2, 3, 9, 8)
    program = capture(Net().eval(), (x,))
    _check(program, program.read(), (x.numpy(),), 4)
