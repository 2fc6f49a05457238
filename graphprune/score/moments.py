"""Mean and variance of each index of each reading, batch by batch in float64.

Batches are merged by the deviations from their own means (Chan et al. 1979), so that nothing cancels where a mean is
large against the deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphprune.score.positions import Numbers
from graphprune.score.readings import Activation, Reading, Readings

__all__ = ["Moments"]


@dataclass(slots=True)
class Moments:
    """Of each index of an axis: the mean, and the sum of squared deviations from it, of ``count`` numbers."""

    count: int
    mean: Numbers
    deviations: Numbers

    @property
    def variance(self) -> Numbers:
        """The variance over all samples and places."""
        return self.deviations / max(self.count, 1)

    @staticmethod
    def of(readings: Readings) -> Iterator[tuple[Reading, Moments]]:
        """The moments of all readings, from one pass."""
        found = [Moments(0, np.zeros(size), np.zeros(size)) for size in (int(r.axis.size) for r in readings)]  # type: ignore[arg-type]
        for batch in readings.values():
            for moments, (reading, values) in zip(found, batch, strict=True):
                moments.add(reading.flat(values))
        yield from zip(readings, found, strict=True)

    def add(self, flat: Activation) -> None:
        """Take in a batch ``(samples, indices, places)``."""
        count = flat.shape[0] * flat.shape[2]
        if not count:
            return
        mean = flat.mean((0, 2), dtype=np.float64)
        centred = flat - mean.astype(flat.dtype)[None, :, None]
        # the mean is rounded to the type of the values: what is left of it is taken off again
        rest = centred.mean((0, 2), dtype=np.float64)
        deviations = np.square(centred, out=centred).sum((0, 2), dtype=np.float64) - count * rest**2
        step, total = mean - self.mean, self.count + count
        self.mean += step * (count / total)
        self.deviations += np.maximum(deviations, 0) + step**2 * (self.count * count / total)
        self.count = total
