"""Networks with an output per position: U-Net for masks, a YOLO-like detector for boxes."""

from __future__ import annotations

import numpy as np
import onnx

from graphprune.models.reference.blocks import conv_bn
from graphprune.models.reference.builder import Array, GraphBuilder, Value

__all__ = ["unet", "yolo"]


def unet(*, tiny: bool = False, width: int | None = None, depth: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """Build a U-Net (Ronneberger et al. 2015) with transposed convolutions and concatenated skips."""
    b = GraphBuilder(name="unet", seed=seed)
    width, depth = width or (4 if tiny else 64), depth or (2 if tiny else 4)
    size = 16 if tiny else 256
    x = b.input("image", ("batch", 3, size, size))
    skips = []
    for level in range(depth):
        with b.scope(f"down{level}"):
            x = conv_bn(b, conv_bn(b, x, width * 2**level, 3), width * 2**level, 3)
            skips.append(x)
            x = b.pool("MaxPool", x, 2, 2)
    x = conv_bn(b, conv_bn(b, x, width * 2**depth, 3), width * 2**depth, 3)
    for level, skip in reversed(list(enumerate(skips))):
        with b.scope(f"up{level}"):
            x = b.concat([skip, upsample(b, x, width * 2**level)], 1)
            x = conv_bn(b, conv_bn(b, x, width * 2**level, 3), width * 2**level, 3)
    b.output(b.conv(x, 2, 1), "mask")
    return b.model()


def upsample(b: GraphBuilder, x: Value, out: int) -> Value:
    """Double the size by a transposed convolution."""
    weight = b.weight(x[1], out, 2, 2, scale=(1.5 / x[1]) ** 0.5)
    shape = (x.shape[0], out, 2 * x[2], 2 * x[3])
    bias = b.weight(out, name="bias")
    return b.op("ConvTranspose", x, weight, bias, shape=shape, kernel_shape=[2, 2], strides=[2, 2])


def yolo(*, tiny: bool = False, width: int | None = None, classes: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """Build a YOLOv8-like detector: C2f blocks, pooling pyramid, two-way neck, decoupled head with box decoding."""
    b = GraphBuilder(name="yolo", seed=seed)
    width, classes = width or (4 if tiny else 16), classes or (3 if tiny else 80)
    size, repeats = (64, (1, 1, 1, 1)) if tiny else (320, (1, 2, 2, 1))
    x = conv_bn(b, b.input("image", ("batch", 3, size, size)), width, 3, stride=2, activation="silu")
    levels = []
    for stage, count in enumerate(repeats):
        with b.scope(f"stage{stage}"):
            x = conv_bn(b, x, width * 2 ** (stage + 1), 3, stride=2, activation="silu")
            x = c2f(b, x, x[1], count, shortcut=True)
            levels.append(x)
    p3, p4, p5 = levels[1], levels[2], pooling_pyramid(b, levels[3])
    n4 = c2f(b, b.concat([double(b, p5), p4], 1), p4[1], 1, shortcut=False)
    n3 = c2f(b, b.concat([double(b, n4), p3], 1), p3[1], 1, shortcut=False)
    m4 = b.concat([conv_bn(b, n3, n3[1], 3, stride=2, activation="silu"), n4], 1)
    m4 = c2f(b, m4, p4[1], 1, shortcut=False)
    m5 = b.concat([conv_bn(b, m4, m4[1], 3, stride=2, activation="silu"), p5], 1)
    m5 = c2f(b, m5, p5[1], 1, shortcut=False)
    detect(b, [n3, m4, m5], classes, 4 if tiny else 16, size)
    return b.model()


def c2f(b: GraphBuilder, x: Value, out: int, count: int, *, shortcut: bool) -> Value:
    """Split, transform one half ``count`` times, concatenate every stage."""
    half = out // 2
    stages = b.split(conv_bn(b, x, out, 1, activation="silu"), [half, half], 1)
    for _ in range(count):
        y = conv_bn(b, conv_bn(b, stages[-1], half, 3, activation="silu"), half, 3, activation="silu")
        stages.append(b.add(stages[-1], y) if shortcut else y)
    return conv_bn(b, b.concat(stages, 1), out, 1, activation="silu")


def pooling_pyramid(b: GraphBuilder, x: Value) -> Value:
    """Concatenate three successive 5x5 poolings."""
    pyramid = [conv_bn(b, x, x[1] // 2, 1, activation="silu")]
    for _ in range(3):
        pyramid.append(b.pool("MaxPool", pyramid[-1], 5, 1, 2))
    return conv_bn(b, b.concat(pyramid, 1), x[1], 1, activation="silu")


def double(b: GraphBuilder, x: Value) -> Value:
    """Double the size by the nearest neighbour."""
    scales = b.constant(np.asarray([1, 1, 2, 2], np.float32), "scales")
    shape = (*x.shape[:2], 2 * x[2], 2 * x[3])
    options = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return b.op("Resize", x, None, scales, shape=shape, **options)


def detect(b: GraphBuilder, levels: list[Value], classes: int, bins: int, size: int) -> None:
    """Add the head: per level a box and a class branch, then distances decoded to boxes over all anchors."""
    boxes: list[Value] = []
    scores: list[Value] = []
    anchors: list[Array] = []
    for index, level in enumerate(levels):
        with b.scope(f"head{index}"):
            for branch, found in ((4 * bins, boxes), (classes, scores)):
                y = level
                for _ in range(2):
                    y = conv_bn(b, y, max(level[1], 8), 3, activation="silu")
                y = b.conv(y, branch, 1)
                found.append(b.reshape(y, [0, branch, -1], (y.shape[0], branch, y[2] * y[3])))
            grid = np.stack(np.meshgrid(np.arange(level[3]), np.arange(level[2]))).reshape(2, -1) + 0.5
            anchors.append(np.concatenate([grid, np.full((1, grid.shape[1]), size / level[2])]))
    box, score = b.concat(boxes, 2), b.concat(scores, 2)
    total = box[2]
    y = b.transpose(b.reshape(box, [0, 4, bins, -1], (box.shape[0], 4, bins, total)), 0, 2, 1, 3)
    y = b.op("Softmax", y, axis=1)
    steps = b.constant(np.arange(bins, dtype=np.float32).reshape(1, bins, 1, 1), "steps")
    y = b.reshape(b.conv(y, 1, 1, bias=False, weight=steps), [0, 4, -1], (box.shape[0], 4, total))
    places = np.concatenate(anchors, 1).astype(np.float32)
    centre, stride = b.constant(places[None, :2], "anchors"), b.constant(places[None, 2:], "strides")
    first, second = b.split(y, [2, 2], 1)
    low, high = b.op("Sub", centre, first), b.add(centre, second)
    middle = b.op("Div", b.add(low, high), b.scalar(2.0))
    decoded = b.mul(b.concat([middle, b.op("Sub", high, low)], 1), stride)
    b.output(b.concat([decoded, b.op("Sigmoid", score)], 1), "detections")
