"""The images that accuracy is measured on: decoded once, kept as arrays under ``build/accuracy``.

Calibration images and evaluation images never overlap. CIFAR-10 is calibrated on training images whose pixels are the
original ones and evaluated on the 10,000 test images, which the corpus holds as JPEG files; the corpus has 500 ImageNet
images, of which a seeded part is for calibration and the rest for evaluation.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BUILD", "MEAN", "STD", "Images", "cached", "cifar", "cifar_test", "cifar_training", "corpus", "imagenet"]

Array = npt.NDArray[Any]
BUILD = Path(__file__).parent.parent / "build" / "accuracy"
"""Where everything goes that can be made again."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What all networks here were trained with, those of CIFAR-10 too: statistics of ImageNet, by channel."""
CROP = 224
"""Pixels along an edge that networks of ImageNet take, out of the middle of images of 256."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images (n, height, width, 3) of 8 bits, and their labels (n,)."""

    pixels: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[Array]:
        """Yield what a network takes: (batch, 3, height, width) in float32, normalised."""
        for start in range(0, len(self), size):
            yield normalised(self.pixels[start : start + size])

    def take(self, which: Array) -> Images:
        """The images with these numbers."""
        return Images(self.pixels[which], self.labels[which])


def normalised(pixels: Array) -> Array:
    """Return 8-bit images as a network takes them."""
    scale = 1 / (255 * np.array(STD, np.float32))
    shifted = pixels * scale.astype(np.float32) - np.array(MEAN, np.float32) / np.array(STD, np.float32)
    return np.ascontiguousarray(shifted.transpose(0, 3, 1, 2), np.float32)


def corpus() -> Path:
    """The folder that holds the data and the trained networks."""
    root = os.environ.get("GRAPHPRUNE_CORPUS")
    if not root:
        raise SystemExit("set GRAPHPRUNE_CORPUS to the folder that holds data/, onnx/ and torch/ of the corpus")
    return Path(root)


def cached(name: str, make: Callable[[], Array]) -> Array:
    """Return the array that ``make`` made the first time; it is read from its file as it is needed."""
    path = BUILD / f"{name}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        with beside.open("wb") as file:
            np.save(file, make())
        beside.replace(path)
    found: Array = np.load(path, mmap_mode="r")
    return found


def cifar(seed: int, calibration: int) -> tuple[Images, Images]:
    """Return ``calibration`` training images that the seed picks of 4,000, and the 10,000 test images."""
    stored = np.load(corpus() / "data" / "cifar10_lossless.npz")
    training = Images(stored["x_train"], stored["y_train"].astype(np.int64))
    return training.take(picked(len(training), calibration, seed)), cifar_test()


def cifar_test() -> Images:
    """Return the 10,000 test images, which the corpus has as JPEG files."""
    return _cifar_jpeg("test")


def cifar_training() -> Images:
    """Return the 50,000 training images, as JPEG files like the test images."""
    return _cifar_jpeg("train")


def imagenet(seed: int, calibration: int) -> tuple[Images, Images]:
    """Return ``calibration`` images that the seed picks of 500, and the others."""
    path = corpus() / "data" / "imagenet_500evenx256_jpeg.npz"

    def make() -> Array:
        stored = np.load(path)
        border = (256 - CROP) // 2
        return decoded(stored["jpeg"], stored["offsets"])[:, border : border + CROP, border : border + CROP]

    pixels = cached("imagenet", make)
    images = Images(pixels, np.load(path)["labels"].astype(np.int64))
    chosen = picked(len(images), calibration, seed)
    return images.take(chosen), images.take(np.setdiff1d(np.arange(len(images)), chosen))


def picked(total: int, count: int, seed: int) -> Array:
    """Return ``count`` of the numbers below ``total``, ascending, by a generator of this seed."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def decoded(files: Array, offsets: Array) -> Array:
    """Return the images of concatenated JPEG files."""
    from PIL import Image

    data = files.tobytes()
    pairs = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return np.stack([np.asarray(Image.open(io.BytesIO(data[a:b])).convert("RGB")) for a, b in pairs])


@cache
def _cifar_jpeg(part: str) -> Images:
    path = corpus() / "data" / "cifar10_jpeg_bytes.npz"

    def make() -> Array:
        stored = np.load(path)
        return decoded(stored[f"{part}_jpeg"], stored[f"{part}_offsets"])

    pixels = cached(f"cifar_{part}", make)
    labels = cached(f"cifar_{part}_labels", lambda: np.load(path)[f"{part}_labels"].astype(np.int64))
    return Images(pixels, labels)
