"""Plain convolutional classifiers: ResNet, VGG, SqueezeNet, MobileNetV2, Inception."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from graphprune.models.reference.blocks import classifier, conv_bn
from graphprune.models.reference.builder import GraphBuilder, Value

__all__ = ["inception", "mobilenet_v2", "resnet18", "resnet50", "squeezenet", "vgg16"]


def stem(b: GraphBuilder, x: Value, width: int, tiny: bool) -> Value:
    """Downsample by four as ImageNet networks do; a tiny network keeps its small image."""
    if tiny:
        return conv_bn(b, x, width, 3)
    return b.pool("MaxPool", conv_bn(b, x, width, 7, stride=2), 3, 2, 1)


def resnet(
    name: str, stages: Sequence[int], *, expansion: int, width: int, tiny: bool, classes: int, seed: int
) -> onnx.ModelProto:
    """Build a residual network (He et al. 2016); ``expansion`` four means bottleneck blocks."""
    b = GraphBuilder(name=name, seed=seed)
    size = 16 if tiny else 224
    x = stem(b, b.input("image", ("batch", 3, size, size)), width, tiny)
    for stage, blocks in enumerate(stages):
        inner = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            with b.scope(f"layer{stage + 1}.{block}"):
                y = residual_branch(b, x, inner, expansion, stride)
                if stride != 1 or x[1] != y[1]:
                    x = conv_bn(b, x, y[1], 1, stride=stride, activation=None)
                x = b.relu(b.add(y, x))
    b.output(classifier(b, x, classes), "logits")
    return b.model()


def residual_branch(b: GraphBuilder, x: Value, inner: int, expansion: int, stride: int) -> Value:
    """Return a block's main path, without the shortcut."""
    if expansion == 1:
        return conv_bn(b, conv_bn(b, x, inner, 3, stride=stride), inner, 3, activation=None)
    y = conv_bn(b, conv_bn(b, x, inner, 1), inner, 3, stride=stride)
    return conv_bn(b, y, inner * expansion, 1, activation=None)


def resnet18(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build ResNet-18."""
    stages = (1, 1) if tiny else (2, 2, 2, 2)
    width = width or (8 if tiny else 64)
    return resnet("resnet18", stages, expansion=1, width=width, tiny=tiny, classes=classes, seed=seed)


def resnet50(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build ResNet-50."""
    stages = (1, 1) if tiny else (3, 4, 6, 3)
    width = width or (4 if tiny else 64)
    return resnet("resnet50", stages, expansion=4, width=width, tiny=tiny, classes=classes, seed=seed)


def vgg16(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build VGG-16 (Simonyan and Zisserman 2015) with a classifier of 1024 units over the flattened 7x7 map."""
    b = GraphBuilder(name="vgg16", seed=seed)
    width = width or (8 if tiny else 64)
    size = 16 if tiny else 224
    x = b.input("image", ("batch", 3, size, size))
    plan = (1, 2) if tiny else (2, 2, 3, 3, 3)
    for stage, convs in enumerate(plan):
        for _ in range(convs):
            x = b.relu(b.conv(x, width * min(2**stage, 8), 3))
        x = b.pool("MaxPool", x, 2, 2)
    flat = x[1] * x[2] * x[3]
    x = b.op("Flatten", x, shape=(x.shape[0], flat), axis=1)
    for _ in range(2):
        x = b.relu(b.gemm(x, width * 16 if not tiny else width * 2))
    b.output(b.gemm(x, classes), "logits")
    return b.model()


def squeezenet(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build SqueezeNet 1.1 (Iandola et al. 2016)."""
    b = GraphBuilder(name="squeezenet", seed=seed)
    width = width or (4 if tiny else 16)
    size = 32 if tiny else 224
    x = b.relu(b.conv(b.input("image", ("batch", 3, size, size)), 4 * width, 3, stride=2))
    x = b.pool("MaxPool", x, 3, 2, 1)
    for block, factor in enumerate((1, 2) if tiny else (1, 1, 2, 2, 3, 3, 4, 4)):
        with b.scope(f"fire{block}"):
            squeezed = b.relu(b.conv(x, width * factor, 1))
            wide = [b.relu(b.conv(squeezed, 4 * width * factor, kernel)) for kernel in (1, 3)]
            x = b.concat(wide, 1)
        if block in (1, 3) and not tiny:
            x = b.pool("MaxPool", x, 3, 2, 1)
    x = b.global_pool(b.relu(b.conv(x, classes, 1)))
    b.output(b.op("Flatten", x, shape=(x.shape[0], classes), axis=1), "logits")
    return b.model()


def mobilenet_v2(*, tiny: bool = False, width: float = 1.0, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build MobileNetV2 (Sandler et al. 2018)."""
    b = GraphBuilder(name="mobilenet_v2", seed=seed)
    if tiny:
        plan, size = [(1, 8, 1, 1), (4, 12, 2, 2)], 16
    else:
        plan, size = (
            [
                (1, 16, 1, 1),
                (6, 24, 2, 2),
                (6, 32, 3, 2),
                (6, 64, 4, 2),
                (6, 96, 3, 1),
                (6, 160, 3, 2),
                (6, 320, 1, 1),
            ],
            224,
        )
    x = conv_bn(b, b.input("image", ("batch", 3, size, size)), int(32 * width), 3, stride=2, activation="relu6")
    for stage, (expansion, channels, count, first) in enumerate(plan):
        for block in range(count):
            with b.scope(f"stage{stage}.{block}"):
                x = inverted_residual(b, x, expansion, int(channels * width), first if block == 0 else 1)
    x = conv_bn(b, x, 32 if tiny else 1280, 1, activation="relu6")
    b.output(classifier(b, x, classes), "logits")
    return b.model()


def inverted_residual(b: GraphBuilder, x: Value, expansion: int, out: int, stride: int) -> Value:
    """Widen, convolve each channel, narrow; with a shortcut where the shape allows."""
    y = conv_bn(b, x, x[1] * expansion, 1, activation="relu6") if expansion > 1 else x
    y = conv_bn(b, y, y[1], 3, stride=stride, groups=y[1], activation="relu6")
    y = conv_bn(b, y, out, 1, activation=None)
    return b.add(x, y) if stride == 1 and x[1] == out else y


def inception(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build a network of Inception blocks with factorised 1x7 and 7x1 convolutions (Szegedy et al. 2016)."""
    b = GraphBuilder(name="inception", seed=seed)
    width = width or (4 if tiny else 32)
    size = 16 if tiny else 224
    x = stem(b, b.input("image", ("batch", 3, size, size)), 2 * width, tiny)
    for stage in range(1 if tiny else 3):
        for block in range(2 if tiny else 3):
            with b.scope(f"mixed{stage}.{block}"):
                x = inception_block(b, x, width * 2**stage)
        if not tiny:
            x = b.pool("MaxPool", x, 3, 2, 1)
    b.output(classifier(b, x, classes), "logits")
    return b.model()


def inception_block(b: GraphBuilder, x: Value, width: int) -> Value:
    """Return four branches side by side: 1x1, 3x3 twice, 1x7 then 7x1, pooled."""
    double = conv_bn(b, conv_bn(b, conv_bn(b, x, width, 1), 2 * width, 3), 2 * width, 3)
    long = conv_bn(b, x, width, 1)
    for kernel in ([1, 7], [7, 1]):
        weight = b.weight(2 * width, long[1], *kernel)
        pads = [(size - 1) // 2 for size in kernel] * 2
        shape = (long.shape[0], 2 * width, *long.shape[2:])
        long = b.op("Conv", long, weight, shape=shape, kernel_shape=kernel, pads=pads)
        long = b.relu(b.batch_norm(long))
    pooled = conv_bn(b, b.pool("AveragePool", x, 3, 1, 1), width, 1)
    return b.concat([conv_bn(b, x, 2 * width, 1), double, long, pooled], 1)
