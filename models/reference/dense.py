"""Classifiers whose channels are concatenated, split and shuffled: DenseNet, ShuffleNetV2."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from graphprune.models.reference.blocks import classifier, conv_bn
from graphprune.models.reference.builder import GraphBuilder, Value
from graphprune.models.reference.cnn import stem

__all__ = ["densenet121", "densenet201", "shufflenet_v2"]


def densenet(name: str, stages: Sequence[int], *, growth: int, tiny: bool, classes: int, seed: int) -> onnx.ModelProto:
    """Build a DenseNet (Huang et al. 2017): every layer reads the concatenation of all before it in its stage."""
    b = GraphBuilder(name=name, seed=seed)
    size = 16 if tiny else 224
    x = stem(b, b.input("image", ("batch", 3, size, size)), 2 * growth, tiny)
    for stage, layers in enumerate(stages):
        features = [x]
        for layer in range(layers):
            with b.scope(f"dense{stage + 1}.{layer + 1}"):
                y = b.concat(features, 1) if layer else x
                y = conv_bn(b, b.relu(b.batch_norm(y)), 4 * growth, 1)
                features.append(b.conv(y, growth, 3, bias=False))
        x = b.relu(b.batch_norm(b.concat(features, 1)))
        if stage + 1 < len(stages):
            x = b.pool("AveragePool", b.conv(x, x[1] // 2, 1, bias=False), 2, 2)
    b.output(classifier(b, x, classes), "logits")
    return b.model()


def densenet121(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build DenseNet-121; ``width`` is the growth rate."""
    stages, growth = ((2, 3), 4) if tiny else ((6, 12, 24, 16), 32)
    return densenet("densenet121", stages, growth=width or growth, tiny=tiny, classes=classes, seed=seed)


def densenet201(*, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Build DenseNet-201; ``width`` is the growth rate."""
    stages, growth = ((3, 4), 4) if tiny else ((6, 12, 48, 32), 32)
    return densenet("densenet201", stages, growth=width or growth, tiny=tiny, classes=classes, seed=seed)


def shufflenet_v2(
    *, tiny: bool = False, width: int | None = None, classes: int = 1000, seed: int = 0
) -> onnx.ModelProto:
    """Build ShuffleNetV2 (Ma et al. 2018); ``width`` is the channels of the first stage."""
    b = GraphBuilder(name="shufflenet_v2", seed=seed)
    width = width or (8 if tiny else 116)
    size = 16 if tiny else 224
    x = stem(b, b.input("image", ("batch", 3, size, size)), 8 if tiny else 24, tiny)
    for stage, repeats in enumerate((2,) if tiny else (4, 8, 4)):
        channels = width * 2**stage
        for block in range(repeats):
            with b.scope(f"stage{stage + 2}.{block}"):
                x = shuffle_unit(b, x, channels, 2 if block == 0 else 1)
    x = conv_bn(b, x, 32 if tiny else 1024, 1)
    b.output(classifier(b, x, classes), "logits")
    return b.model()


def shuffle_unit(b: GraphBuilder, x: Value, channels: int, stride: int) -> Value:
    """Transform one half of the channels, keep or downsample the other, shuffle both together."""
    half = channels // 2
    if stride == 1:
        a, y = b.split(x, [half, half], 1)
    else:
        a = conv_bn(b, x, x[1], 3, stride=2, groups=x[1], activation=None)
        a, y = conv_bn(b, a, half, 1), x
    y = conv_bn(b, y, half, 1)
    y = conv_bn(b, y, half, 3, stride=stride, groups=half, activation=None)
    return shuffle(b, b.concat([a, conv_bn(b, y, half, 1)], 1), 2)


def shuffle(b: GraphBuilder, x: Value, groups: int) -> Value:
    """Interleave ``groups`` groups of channels by Reshape, Transpose, Reshape."""
    n, c, h, w = x.shape
    per = x[1] // groups
    y = b.reshape(x, [-1, groups, per, x[2], x[3]], (n, groups, per, h, w))
    return b.reshape(b.transpose(y, 0, 2, 1, 3, 4), [-1, x[1], x[2], x[3]], (n, c, h, w))
