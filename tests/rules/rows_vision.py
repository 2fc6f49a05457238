"""Samples of operators of images, signals and tokens."""

from __future__ import annotations

import numpy as np

from rules.references import max_roi_pool, position_bias
from rules.registry import const, data, row, rows

_M = "com.microsoft."
rows(f"GridSample {_M}GridSample", (2, 3, 4, 5), (2, 3, 2, 2))
row("AffineGrid", (2, 2, 3), const([2, 3, 4, 5]))
_rois = data([[0, 0, 2, 2], [1, 0, 3, 3], [0, 1, 3, 2]], np.float32)
row("RoiAlign", (2, 3, 4, 5), _rois, data([0, 1, 0]), output_height=2, output_width=2, opset=16)
row(
    "MaxRoiPool",
    (2, 3, 4, 5),
    data([[0, 0, 0, 2, 2], [1, 1, 0, 3, 3]], np.float32),
    pooled_shape=[2, 2],
    reference=max_roi_pool,
)
row(f"{_M}CropAndResize", (2, 3, 4, 5), _rois / 4, data([0, 1, 0], np.int32), data([2, 2], np.int32))
row(f"{_M}MaxpoolWithMask", (2, 3, 4, 5), data([[[[1, 1, 1, 1, 1]] * 4]], np.int32), kernel_shape=[2, 2])
row("Crop", (2, 3, 6, 5), border=[1, 1, 1, 1], opset=7)
row("ImageScaler", (2, 3, 4, 5), bias=[0.1, 0.2, 0.3], scale=0.5, opset=7)
row("Det", (2, 3, 4, 4))
row(f"{_M}Inverse", (2, 3, 4, 4))
row("Col2Im", (2, 3 * 4, 6), const([3, 4]), const([2, 2]))
row("CenterCropPad", (2, 3, 4, 5), const([2, 7]), axes=[2, 3])
row("DeformConv", (2, 6, 5, 4), (4, 3, 2, 2), (2, 8, 4, 3), (4,), (2, 4, 4, 3), group=2, kernel_shape=[2, 2])
row("DeformConv", (2, 6, 5, 4), (4, 6, 2, 2), (2, 16, 4, 3), offset_group=2, kernel_shape=[2, 2])
row(f"{_M}UnfoldTensor", (2, 3, 6), dim=-1, size=2, step=2)
row(f"{_M}RelativePositionBias", (32, 5), data([4]), data([4]), max_distance=8, reference=position_bias)
_counts = data([[3], [2]], np.int32)


def _remove(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.concatenate([own[:count] for own, (count,) in zip(x, counts, strict=True)])


def _restore(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    padded = np.concatenate([x, np.zeros((offsets.size - len(x), x.shape[1]))])
    return padded[np.argsort(offsets.reshape(-1))].reshape(*offsets.shape, -1)


row(f"{_M}RemovePadding", (2, 3, 5), _counts, reference=_remove)
row(f"{_M}RestorePadding", (5, 4), data([[0, 1, 2], [3, 4, 5]], np.int32), reference=_restore)

row("DFT", (2, 6, 3, 1), None, const(1))
row("DFT", (2, 6, 3, 2), axis=2, opset=17)
row("STFT", (2, 12, 1), const(3), None, const(4), onesided=1)
row("STFT", (2, 12), const(3), (4,), onesided=1)
row("CumProd", (2, 5, 3), const(1), opset=26, by_onnx=True)
for domain in ("", _M):
    state = (2, 5, 2)
    row(f"{domain}CausalConvWithState", (2, 5, 4), (5, 1, 3), (5,), state, results=2, opset=27, activation="silu")

row("OneHot", data([[0, 1, 2], [1, 1, 0]]), const(4), const([0.0, 1.0], np.float32))
row("OneHot", data([[0, 1, 2], [1, 1, 0]]), const(4), const([0.0, 1.0], np.float32), axis=0)
row("ReverseSequence", (4, 2, 3), data([3, 4]))
row("ReverseSequence", (2, 4, 3), data([3, 4]), batch_axis=0, time_axis=1)
row("Compress", (2, 4, 3), data([True, False, True], bool), axis=1)
row("Compress", (2, 3), data([True, False, True], bool))
row("TensorScatter", (2, 3, 6, 5), (2, 3, 2, 5), data([1, 3]), opset=24)
row("TensorScatter", (2, 6, 5), (2, 2, 5), axis=1, opset=24)
row(f"{_M}TorchEmbedding", (6, 5), data([[0, 5], [3, 2]]), reference=lambda table, index: table[index])
row(f"{_M}GatherND", (3, 4, 5), data([[0, 1], [2, 3]]))
row(f"{_M}Trilu", (2, 4, 5))
