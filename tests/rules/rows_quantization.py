"""Samples of quantised operators."""

from __future__ import annotations

import numpy as np

from rules.registry import Spelled, const, data, of, positive, row, rows

_M = "com.microsoft."
_I8, _U8 = np.int8, np.uint8


def scale(*shape: int) -> np.ndarray:
    """Scales that keep results in range."""
    return np.asarray(positive(*shape) / 8 + 0.02, np.float32)


_zero = of(_U8)
_one = scale()
row("QuantizeLinear", (3, 5), _one)
row("QuantizeLinear", (3, 5, 2), scale(5), of(_U8, 5))
row("QuantizeLinear", (3, 5, 2), scale(3), of(_I8, 3), axis=0)
row("QuantizeLinear", (3, 6), scale(3, 2), of(_I8, 3, 2), axis=1, block_size=3)
row("DequantizeLinear", of(_U8, 3, 5), _one, _zero)
row("DequantizeLinear", of(_I8, 3, 5, 2), scale(2), axis=-1)
row("DequantizeLinear", of(_I8, 3, 6), scale(3, 2), of(_I8, 3, 2), axis=1, block_size=3)
row("DequantizeLinear", of(_I8, 3, 5), scale(3, 2), axis=1, block_size=3)
row("DequantizeLinear", of(_U8, 3, 5), _one, _zero, opset=10)
row(f"{_M}QuantizeLinear", (3, 5, 2), scale(5), of(_U8, 5), axis=1)
row(f"{_M}DequantizeLinear", of(_U8, 3, 5, 2), scale(5), of(_U8, 5), axis=1)
row("DynamicQuantizeLinear", (3, 5), results=3)

for group, channels, weight in ((1, 3, (4, 3, 3, 3)), (2, 6, (8, 3, 3, 3)), (6, 6, (6, 1, 3, 3))):
    w, out = of(_I8, *weight), weight[0]
    x = of(_U8, 2, channels, 5, 4)
    per_channel = scale(out), np.zeros(out, _I8)
    bias = of(np.int32, out)
    for domain in ("", _M):
        row(f"{domain}QLinearConv", x, _one, _zero, w, *per_channel, scale() * 8, _zero, bias, group=group)
    row("QLinearConv", x, _one, _zero, w, _one, of(_I8), scale() * 8, _zero, group=group)
    row("ConvInteger", x, of(_U8, *weight), _zero, of(_U8), group=group)
    last = np.moveaxis(x, 1, -1)
    row(
        f"{_M}QLinearConv", last, _one, _zero, w, *per_channel, scale() * 8, _zero, bias, group=group, channels_last=1,
        pads=[1, 1, 1, 1],
    )  # fmt: skip
row("ConvInteger", of(_U8, 2, 3, 5, 4), of(_U8, 4, 3, 3, 3))

_a, _b = of(_U8, 3, 4), of(_I8, 4, 5)
row("MatMulInteger", _a, _b)
row("MatMulInteger", _a, _b, _zero, of(_I8))
row("MatMulInteger", _a, _b, _zero, of(_I8, 5))
row("MatMulInteger", of(_U8, 2, 3, 4), of(_U8, 2, 4, 5), _zero)
row("QLinearMatMul", _a, _one, _zero, _b, _one, of(_I8), scale() * 4, _zero)
row("QLinearMatMul", of(_U8, 2, 3, 4), _one, _zero, _b, scale(5), np.zeros(5, _I8), scale() * 4, _zero)
row(f"{_M}MatMulInteger16", of(np.int16, 3, 4), of(np.int16, 4, 5))
row(f"{_M}MatMulIntegerToFloat", _a, _b, _one, _one)
row(f"{_M}MatMulIntegerToFloat", _a, _b, _one, scale(5), _zero, of(_I8, 5), (5,))
row(f"{_M}DynamicQuantizeMatMul", (3, 4), _b, _one)
row(f"{_M}DynamicQuantizeMatMul", (2, 3, 4), _b, scale(5), of(_I8, 5), (5,))
row(f"{_M}QGemm", _a, _one, _zero, _b, _one, of(_I8), of(np.int32, 5), scale() * 4, _zero)
row(f"{_M}QGemm", _a, _one, _zero, of(_I8, 5, 4), scale(5), np.zeros(5, _I8), transB=1)
row(f"{_M}QGemm", of(_U8, 4, 3), _one, _zero, _b, _one, of(_I8), transA=1, alpha=0.5)

_x, _y = of(_U8, 2, 3, 5), of(_U8, 3, 1, seed=1)
rows(f"{_M}QLinearAdd {_M}QLinearMul", _x, _one, _zero, _y, _one, _zero, scale() * 2, _zero)
row(f"{_M}QLinearWhere", of(bool, 5), _x, _one, _zero, _y, _one, _zero, scale() * 2, _zero)
row(f"{_M}MulInteger", of(_U8, 3, 5), _zero, of(_U8, 5), _zero, reference=lambda a, p, b, q: (a - p) * (b - q))
rows(
    f"{_M}QLinearSigmoid {_M}QLinearLeakyRelu",
    _x,
    const(0.1, np.float32),
    _c := const(3, _U8),
    const(0.01, np.float32),
    _c,
)
row(
    f"{_M}QLinearSoftmax",
    _x,
    const(0.1, np.float32),
    _c,
    const(0.004, np.float32),
    const(0, _U8),
    axis=-1,
    more={"opset": 13},
)
_image = of(_U8, 2, 3, 5, 4)
row(f"{_M}QLinearAveragePool", _image, _one, _zero, _one, _zero, kernel_shape=[2, 2])
row(f"{_M}QLinearAveragePool", _image, _one, _zero, _one, _zero, kernel_shape=[2, 2], channels_last=1)
row(f"{_M}QLinearGlobalAveragePool", _image, _one, _zero, _one, _zero)
row(f"{_M}QLinearGlobalAveragePool", _image, _one, _zero, _one, _zero, channels_last=1)
_more = of(_U8, 2, 4, 5)
row(f"{_M}QLinearConcat", const(0.05, np.float32), _c, _x, *(_s := (const(0.1, np.float32), _c)), _more, *_s, axis=1)
row(
    f"{_M}QLinearReduceMean",
    _x,
    _one,
    _zero,
    _one,
    _zero,
    axes=[1],
    keepdims=1,
    reference=lambda x, *_, **__: x.mean(1, keepdims=True),
)
row(f"{_M}ReduceSumInteger", _x, axes=[1], keepdims=0, reference=lambda x, **_: x.astype(np.int32).sum(1))
for directions, zero, state in ((1, 3, False), (1, 0, True), (2, 0, False), (2, 3, False)):
    gates = [const(of(_I8, directions, n, 20, seed=n) * 9, _I8) for n in (3, 5)]
    rates = [const([0.004 + 0.001 * n] * directions, np.float32) for n in (0, 1)]
    zeros = const([zero] * directions, _I8)
    states: list[Spelled] = [(directions, 2, 5), (directions, 2, 5)] if state else [None, None]
    row(
        f"{_M}DynamicQuantizeLSTM",
        *((4, 2, 3), *gates, (directions, 40), None, *states, None, rates[0], zeros, rates[1], zeros),
        results=3,
        hidden_size=5,
        direction="forward" if directions == 1 else "bidirectional",
        name=f"zero point {zero}",
    )

for bits, size, blocks in ((4, 16, 4), (4, 16, 3), (8, 16, 3)):
    packed = -(-blocks * bits // 8)
    b = of(_U8, 5, blocks, size * bits // 8) * 11
    options = {"K": size * blocks, "N": 5, "bits": bits, "block_size": size}
    row(f"{_M}MatMulNBits", (3, size * blocks), b, scale(5, blocks), **options)
    row(f"{_M}MatMulNBits", (2, 3, size * blocks), b, scale(5 * blocks), of(_U8, 5 * packed), None, (5,), **options)
    row(f"{_M}MatMulNBits", (3, size * blocks), b, scale(5, blocks), of(_U8, 5, packed), **options)
row(f"{_M}MatMulNBits", (3, 40), of(_U8, 5, 3, 8), scale(5, 3), K=40, N=5, bits=4, block_size=16)
_table = of(_U8, 6, 32)
_ids = data([[1, 5], [0, 2]])
row(f"{_M}GatherBlockQuantized", _table, _ids, scale(6, 4), bits=4, block_size=16, quantize_axis=1)
row(f"{_M}GatherBlockQuantized", _table, _ids, scale(6, 4), of(_U8, 6, 2), bits=4, block_size=16, quantize_axis=1)
row(f"{_M}GatherBlockQuantized", _table, _ids, scale(6, 2), of(_U8, 6, 2), bits=8, block_size=16, quantize_axis=1)
