"""Whether a compiled program computes what the original does."""

from __future__ import annotations

import numpy as np

from graphprune.backends.base import input_specs_of
from graphprune.backends.tvm.executable import TvmExecutable
from graphprune.backends.tvm.importing import ELSEWHERE, Imported
from graphprune.errors import ModelError
from graphprune.sample_inputs import Inputs, inputs_that_run

__all__ = ["checked"]

TOLERANCE = 1e-3
"""Sums of a few thousand 24-bit products in another order differ by 1e-5, and some tens of layers add that up."""

QUANTISED = 0.1
"""What rounds to 8 bits inside may round the other way after such a difference, which is a step of 1/256 each time."""


def checked(executable: TvmExecutable, imported: Imported, seed: int) -> str:
    """A note on how far the outputs are from those of the original, on random inputs that the original runs on.

    The difference is the root of its sum of squares over that of the outputs.

    Raises:
        ModelError: it is more than another order of sums explains, or the program does not run.
    """
    expected: list[np.ndarray] = []

    def run(feed: Inputs) -> None:
        expected[:] = imported.reference(feed)

    try:
        feed = inputs_that_run(run, input_specs_of(executable), seed)
    except ModelError as error:
        return f"not compared with the original: {error}"
    found = executable(feed)
    difference = _distance([found[spec.name] for spec in executable.outputs], expected)
    limit = QUANTISED if imported.quantised else TOLERANCE
    if not difference <= limit:
        raise ModelError(
            f"{executable.name}: what TVM compiled differs from the original by {difference:.2g} of its outputs "
            f"(allowed: {limit:g}) and is not kept; {ELSEWHERE}"
        )
    return f"outputs differ from the original's by {difference:.1e} on random inputs"


def _distance(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Infinite where shapes differ, or one is finite where the other is not."""
    difference = scale = 0.0
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape or not np.array_equal(np.isfinite(one), np.isfinite(other)):
            return float("inf")
        finite = np.isfinite(one)
        left, right = one[finite].astype(np.float64), other[finite].astype(np.float64)
        difference += float(np.sum((left - right) ** 2))
        scale += float(np.sum(right**2))
    if not scale:
        return float("inf") if difference else 0.0
    return float(np.sqrt(difference / scale))
