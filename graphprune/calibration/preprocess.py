"""How pixels become the numbers that a network reads, and how that is written in one line.

A network computes on ``(pixel * scale - mean) / std``, channel by channel, in the order of channels that it was trained
with. The spec is a preset, values, or a preset with values after it::

    imagenet                                      what torchvision, timm and most exports take
    unit                                          0 to 1
    symmetric                                     -1 to 1, as MobileNet in TensorFlow
    raw                                           0 to 255, as they are
    caffe                                         0 to 255, blue first, minus the mean of ImageNet
    scale=1/255,mean=0.49:0.48:0.45,std=0.2       one number, or one a channel between colons
    imagenet,size=256x192,fit=stretch,order=bgr   height x width; stretch, or crop the centre
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.errors import UsageError

__all__ = ["PRESETS", "Preprocess", "parse_preprocess"]

Pixels: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """``(pixel * scale - mean) / std`` for pixels of 0 to 255; one mean and one std for all channels, or one each.

    ``size`` is height and width, where the model leaves them open; ``margin`` is the share of the shorter side that a
    crop keeps (1: all of it); ``layout`` says where the channels are, by default the dimension that is 1, 3 or 4.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    size: tuple[int, int] | None = None
    fit: Literal["crop", "stretch"] = "crop"
    margin: float = 0.875

    def apply(self, pixels: Pixels, axis: int) -> npt.NDArray[np.float32]:
        """Numbers of the same shape from pixels of 0 to 255 whose channels are dimension ``axis``, red first.

        Raises:
            UsageError: there are neither one nor as many means as channels.
        """
        channels = pixels.shape[axis]
        if self.order == "bgr":
            pixels = np.flip(pixels, axis)
        mean, std = (_spread(values, channels, pixels.ndim, axis, name) for values, name in self._named())
        scaled: npt.NDArray[np.float32] = ((pixels.astype(np.float32) * np.float32(self.scale)) - mean) / std
        return scaled

    def _named(self) -> tuple[tuple[tuple[float, ...], str], ...]:
        return (self.mean, "mean"), (self.std, "std")


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "unit": Preprocess(),
    "symmetric": Preprocess(scale=1 / 127.5, mean=(1.0,)),
    "raw": Preprocess(scale=1.0),
    "caffe": Preprocess(scale=1.0, mean=(103.939, 116.779, 123.68), order="bgr"),
}
"""What networks are commonly fed with, by name."""


def parse_preprocess(text: str) -> Preprocess:
    """The preprocessing that a spec describes.

    >>> parse_preprocess("imagenet,order=bgr").mean
    (0.485, 0.456, 0.406)
    >>> parse_preprocess("scale=1/128,mean=1,size=32x48").size
    (32, 48)

    Raises:
        UsageError: a word of it is unknown, or its value makes no sense.
    """
    found = Preprocess()
    for index, word in enumerate(part.strip() for part in text.split(",")):
        key, equals, value = word.partition("=")
        if index == 0 and not equals:
            if word not in PRESETS:
                raise UsageError(
                    f"--preprocess: '{word}' is none of {', '.join(PRESETS)}; or write scale=1/255,mean=..."
                )
            found = PRESETS[word]
        else:
            found = replace(found, **{key: _value(key, value, word)})
    return found


def _value(key: str, text: str, word: str) -> Any:
    try:
        if key in ("mean", "std"):
            numbers = tuple(map(_number, text.split(":")))
            if key == "std" and any(number <= 0 for number in numbers):
                raise ValueError
            return numbers
        if key in ("scale", "margin"):
            number = _number(text)
            if number <= 0 or (key == "margin" and number > 1):
                raise ValueError
            return number
        if key == "size":
            height, _, width = text.partition("x")
            size = int(height), int(width or height)
            if min(size) < 1:
                raise ValueError
            return size
        if text in {"order": ("rgb", "bgr"), "layout": ("auto", "nchw", "nhwc"), "fit": ("crop", "stretch")}[key]:
            return text
    except (ValueError, ZeroDivisionError):
        pass
    except KeyError:
        known = "scale, mean, std, order, layout, size, fit, margin"
        raise UsageError(f"--preprocess: '{word}' is none of {known} with a value") from None
    raise UsageError(f"--preprocess: '{word}' has no value that makes sense (such as mean=0.485:0.456:0.406, size=224)")


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    number = float(above) / float(below) if slash else float(above)
    if not np.isfinite(number):
        raise ValueError
    return number


def _spread(values: tuple[float, ...], channels: int, rank: int, axis: int, name: str) -> npt.NDArray[np.float32]:
    """One number a channel, shaped to lie along ``axis``."""
    if len(values) not in (1, channels):
        raise UsageError(
            f"--preprocess: {name} has {len(values)} values and images have {channels} channels; give 1 or {channels}"
        )
    shape = [1] * rank
    shape[axis] = len(values)
    return np.asarray(values, np.float32).reshape(shape)
