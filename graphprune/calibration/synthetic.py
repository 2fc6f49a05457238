"""Inputs for whoever has none: dead leaves instead of photographs, token ids, Gaussian numbers.

Photographs have a power spectrum that falls with the square of the frequency (Field 1987), channels that nearly agree,
and things that hide one another. Images of *dead leaves* (Matheron 1968; Lee, Mumford and Huang 2001) have all of that,
and networks learn features from them (Baradad et al. 2021, https://arxiv.org/abs/2106.05963); activations on noise say
far less (ResNet-20 cut to half its MACs and compensated: 58 % of the test images right, with noise 22 %). They are not
what a network was trained on, so whatever is told from these inputs is told with that caution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphprune.calibration.pieces import Array, Piece
from graphprune.calibration.preprocess import Preprocess
from graphprune.calibration.slots import Slot, channel_axis, is_image
from graphprune.sample_inputs import Inputs, InputSpec, Sizes, input_shapes, random_inputs

__all__ = ["leaf_images", "synthetic_pieces"]

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
    shapes = input_shapes(specs, known, extent, Sizes(size, side, (extent,)))
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
    noise = np.moveaxis(leaf_images(shape[0], shape[axis], sides[0], sides[1], generator), 1, axis)
    if preprocess is None and spec.dtype.kind != "u":
        plain: Array = noise.astype(spec.dtype)
        return plain
    pixels: Array = np.clip(255 * (MEAN + DEVIATION * noise), 0, 255)
    if spec.dtype.kind == "u" or preprocess is None:
        return np.asarray(pixels.round(), spec.dtype)
    prepared: Array = preprocess.apply(pixels, axis).astype(spec.dtype)
    return prepared


def leaf_images(
    count: int, channels: int, height: int, width: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Images of leaves that hide one another, ``(count, channels, height, width)``; channels have mean 0, deviation 1.

    Ellipses and rectangles of all sizes, each of one colour with a gradient and some of the texture below, lie over
    noise with the spectrum of photographs. Unlike noise alone they have edges, corners and flat parts.
    """
    mixing = _colours(channels)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    found = np.empty((count, channels, height, width), np.float32)
    for number in range(count):
        image = 0.7 * np.einsum("ab,bhw->ahw", mixing, _pink(channels, height, width, generator))
        leaves = int(generator.integers(4, 40))
        sizes = np.maximum(0.5 * min(height, width) * generator.random(leaves) ** 1.5, 1.5)
        for size in np.sort(sizes)[::-1]:
            across, down = columns - generator.uniform(0, width), rows - generator.uniform(0, height)
            turn, flat = generator.uniform(0, np.pi), generator.uniform(0.3, 1)
            along = (across * np.cos(turn) + down * np.sin(turn)) / size
            beside = (down * np.cos(turn) - across * np.sin(turn)) / (flat * size)
            round_ = generator.random() < 0.5
            leaf = np.hypot(along, beside) < 1 if round_ else (np.abs(along) < 1) & (np.abs(beside) < 1)
            colour = mixing @ generator.standard_normal(channels)
            shade = 0.3 * generator.standard_normal() * along[leaf]
            image[:, leaf] = colour[:, None] + shade + 0.35 * generator.random() * image[:, leaf]
        found[number] = image
    found -= found.mean((0, 2, 3), keepdims=True)
    deviation = found.std((0, 2, 3), keepdims=True)
    return np.asarray(found / np.where(deviation > 0, deviation, 1), np.float32)


def _colours(channels: int) -> npt.NDArray[np.float64]:
    """How channels follow from independent numbers: brightness, which all share, first."""
    if channels != 3:
        shared = np.full((channels, channels), 0.0)
        shared[:, 0] = np.sqrt(SHARED)
        return shared + np.sqrt(1 - SHARED) * np.eye(channels) if channels > 1 else np.eye(1)
    return np.array([[0.9, 0.35, 0.25], [0.9, 0.0, -0.3], [0.9, -0.35, 0.15]])


def _pink(channels: int, height: int, width: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise whose amplitude falls with the frequency, of deviation 1 in each channel."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width)
    frequency[0, 0] = 1.0
    white = generator.standard_normal((channels, height, width))
    pink: npt.NDArray[np.float64] = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    return np.asarray(pink / np.maximum(pink.std((1, 2), keepdims=True), 1e-12))
