"""Pictures as arrays of the size that a model takes (Pillow, the extra ``images``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.calibration.pieces import Array
from graphprune.calibration.preprocess import Preprocess
from graphprune.calibration.slots import Slot, channel_axis
from graphprune.errors import ModelError, UsageError

__all__ = ["SUFFIXES", "image_array", "image_side"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Names of files that are taken for pictures."""


def image_side(slot: Slot, files: list[Path], preprocess: Preprocess) -> tuple[int, int]:
    """Height and width that the model takes; where it leaves them open, those of the spec, or of all ``files``.

    Raises:
        UsageError: they are open, and the pictures differ.
    """
    axis = channel_axis(slot.spec, preprocess.layout)
    height, width = (dim for place, dim in enumerate(slot.spec.dims) if place not in (0, axis))
    if preprocess.size is not None:
        wanted = preprocess.size
        if any(isinstance(own, int) and own != size for own, size in zip((height, width), wanted, strict=True)):
            raise UsageError(f"--preprocess: size={wanted[0]}x{wanted[1]}, and the model takes {height}x{width}")
        return wanted
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    sizes = {_read(file, lambda image: image.size) for file in files}
    if len(sizes) > 1:
        raise UsageError(
            f"{files[0].parent}: the pictures have {len(sizes)} sizes and input '{slot.name}' takes any; "
            "give --preprocess with size=224"
        )
    across, down = sizes.pop()
    return down, across


def image_array(file: Path, slot: Slot, size: tuple[int, int], preprocess: Preprocess) -> Array:
    """One picture as an array like the input without its batch dimension, its pixels put through ``preprocess``.

    A picture of another size is scaled so that ``margin`` of its shorter side fills the size, and its centre cut out;
    or, with ``fit=stretch``, scaled as it is.

    Raises:
        ModelError: the file cannot be read as a picture, or Pillow is not installed.
        UsageError: the model takes neither 1, 3 nor 4 channels.
    """
    axis = channel_axis(slot.spec, preprocess.layout)
    channels = slot.spec.dims[axis]
    mode = {1: "L", 4: "RGBA"}.get(channels if isinstance(channels, int) else 3, "RGB")
    if isinstance(channels, int) and channels not in (1, 3, 4):
        raise UsageError(
            f"input '{slot.name}' has {channels} channels: pictures have 1, 3 or 4; give arrays as .npz, or layout=nhwc"
        )
    pixels = _read(file, lambda image: np.asarray(_fitted(image.convert(mode), size, preprocess)))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels if axis == 3 else np.moveaxis(pixels, 2, 0)
    return pixels.copy() if slot.spec.dtype.kind == "u" else preprocess.apply(pixels, axis - 1)


def _fitted(image: Any, size: tuple[int, int], preprocess: Preprocess) -> Any:
    height, width = size
    if image.size == (width, height):
        return image
    bilinear = _pillow().Resampling.BILINEAR
    if preprocess.fit == "stretch":
        return image.resize((width, height), bilinear)
    across, down = image.size
    factor = max(width / across, height / down) / preprocess.margin
    left, top = (across - width / factor) / 2, (down - height / factor) / 2
    return image.resize((width, height), bilinear, (left, top, left + width / factor, top + height / factor))


def _read(file: Path, use: Callable[[Any], Any]) -> Any:
    """What ``use`` makes of the opened picture."""
    pillow = _pillow()
    try:
        with pillow.open(file) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:  # what its decoders raise
        raise ModelError(f"{file}: cannot be read as a picture ({error}); remove it or replace it") from None


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise ModelError("pictures need Pillow: pip install 'graphprune[images]', or give arrays as .npz") from None
