"""Inputs for whoever has none: noise with the spectrum of photographs, token ids, Gaussian numbers.

Photographs have a power spectrum that falls with the square of the frequency (Field 1987), channels that nearly agree,
and a contrast that varies from one to the next; white noise has none of that, and activations on it say little. No
noise has what a network was trained on either, so whatever is told from these inputs is told with that caution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphprune.calibration.pieces import Array, Piece
from graphprune.calibration.preprocess import Preprocess
from graphprune.calibration.slots import Slot, channel_axis, is_image
from graphprune.sample_inputs import Inputs, InputSpec, input_shapes, random_inputs

__all__ = ["pink_images", "synthetic_pieces"]

SIDE = 224
EXTENTS = (64, 96, 224, 512, 1280, 16000)
"""Sizes of open dimensions, tried in turn: some networks need a least or a divisible one."""
SHARED = 0.9
"""The share of the variance that the channels of photographs have in common."""
MEAN, DEVIATION = 0.45, 0.25
"""Of photographs' pixels, on a scale of 0 to 1."""
OTHER_IDS = ("mask", "position", "token_type", "segment")
"""Integers with these names are no tokens even where they look up a table."""


def synthetic_pieces(
    slots: Sequence[Slot],
    samples: int,
    batch: int,
    seed: int,
    preprocess: Preprocess | None,
    dims: Mapping[str, int],
    run: Callable[[Inputs], object] | None = None,
) -> list[Piece]:
    """About ``samples`` samples in pieces of a whole batch each, the same for the same seed.

    Dimensions that the model leaves open are as large as ``run`` needs them, which raises on those that do not do.
    """
    extent = _extent(slots, seed, preprocess, dims, run)
    return _pieces(slots, samples, batch, seed, preprocess, dims, extent)


def _extent(
    slots: Sequence[Slot],
    seed: int,
    preprocess: Preprocess | None,
    dims: Mapping[str, int],
    run: Callable[[Inputs], object] | None,
) -> int:
    """The first extent on which the model runs; the first of all where it runs on none."""
    fed = [(slot, dim) for slot in slots for place, dim in enumerate(slot.spec.dims) if place != slot.axis]
    if run is None or all(isinstance(dim, int) or is_image(slot.spec) for slot, dim in fed):
        return EXTENTS[0]
    for extent in EXTENTS:
        (piece,) = _pieces(slots, 1, 1, seed, preprocess, dims, extent)
        try:
            run(piece.inputs)
        except Exception:  # whatever the runtime raises means that it does not take these inputs
            continue
        return extent
    return EXTENTS[0]


def _pieces(
    slots: Sequence[Slot],
    samples: int,
    batch: int,
    seed: int,
    preprocess: Preprocess | None,
    dims: Mapping[str, int],
    extent: int,
) -> list[Piece]:
    fixed = next((slot.fixed for slot in slots if slot.fixed is not None), None)
    size = fixed or min(batch, samples)
    specs = [slot.spec for slot in slots]
    known = {name: number for name, number in dims.items() if any(name in map(str, spec.dims) for spec in specs)}
    side = SIDE if preprocess is None or preprocess.size is None else preprocess.size[0]
    shapes = input_shapes(specs, known, extent, size, side)
    whole = [replace(spec, dims=shapes[spec.name]) for spec in specs]
    generator = np.random.default_rng(seed)
    pieces = []
    unbatched = all(slot.axis is None for slot in slots)
    count = samples if unbatched else max(1, samples // size)
    for index in range(count):
        feed = random_inputs(whole, seed + index)
        for slot in slots:
            if is_image(slot.spec):
                feed[slot.name] = _images(slot.spec, shapes[slot.name], preprocess, generator)
            elif slot.table and slot.spec.dtype.kind in "iu" and not any(w in slot.name.lower() for w in OTHER_IDS):
                ids = generator.integers(0, slot.table, shapes[slot.name])
                feed[slot.name] = ids.astype(slot.spec.dtype)
        pieces.append(Piece(feed, None, 1 if unbatched else _count(feed, slots)))
    return pieces


def _count(feed: Inputs, slots: Sequence[Slot]) -> int:
    return next(int(feed[slot.name].shape[slot.axis]) for slot in slots if slot.axis is not None)


def _images(
    spec: InputSpec, shape: Sequence[int], preprocess: Preprocess | None, generator: np.random.Generator
) -> Array:
    axis = channel_axis(spec, "auto" if preprocess is None else preprocess.layout)
    sides = [size for place, size in enumerate(shape) if place not in (0, axis)]
    noise = np.moveaxis(pink_images(shape[0], shape[axis], sides[0], sides[1], generator), 1, axis)
    if preprocess is None and spec.dtype.kind != "u":
        plain: Array = noise.astype(spec.dtype)
        return plain
    pixels: Array = np.clip(255 * (MEAN + DEVIATION * noise), 0, 255)
    if spec.dtype.kind == "u" or preprocess is None:
        return np.asarray(pixels.round(), spec.dtype)
    prepared: Array = preprocess.apply(pixels, axis).astype(spec.dtype)
    return prepared


def pink_images(
    count: int, channels: int, height: int, width: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Noise of shape (count, channels, height, width), of mean 0 and standard deviation 1, its amplitude 1 / frequency.

    Channels share nine tenths of their variance, and contrast varies between images (log-normally, by a quarter).
    """
    vertical = np.fft.fftfreq(height)[:, None] * height
    horizontal = np.fft.rfftfreq(width)[None, :] * width
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = 1.0
    white = generator.standard_normal((count, channels, height, width))
    if channels > 1:
        common = generator.standard_normal((count, 1, height, width))
        white = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * white
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    pink *= np.exp(0.25 * generator.standard_normal((count, 1, 1, 1)))
    pink -= pink.mean()
    deviation = float(pink.std())
    found: npt.NDArray[np.float32] = (pink / (deviation or 1.0)).astype(np.float32)
    return found
