"""What ONNX Runtime computes here, which other runtimes and machines are compared with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.backends.base import input_specs_of
from graphprune.backends.registry import usable
from graphprune.sample_inputs import Inputs, inputs_that_run

__all__ = ["Reference", "path_of", "reference"]


@dataclass(frozen=True)
class Reference:
    """Random inputs that a network runs on, its outputs on them, and the sizes that its open dimensions have there.

    ``own`` is the :meth:`error` of ONNX Runtime itself when it optimises nothing, and so adds up in another order.
    """

    feed: Inputs
    expected: dict[str, np.ndarray]
    dims: dict[str, int]
    own: float = 0.0

    def error(self, found: Mapping[str, Any]) -> float:
        """The largest difference of any output, as a share of the largest number that is expected of it."""
        return max(_difference(np.asarray(found[name]), value) for name, value in self.expected.items())


def reference(path: Path) -> Reference:
    """Run a network as it is stored."""
    original = usable("onnxruntime").compile(path, "cpu", threads=1, optimize="none")
    feed = inputs_that_run(lambda inputs: original(inputs), input_specs_of(original))
    dims = {
        dim or f"{spec.name}:{position}": feed[spec.name].shape[position]
        for spec in original.inputs
        for position, dim in enumerate(spec.dims)
        if not isinstance(dim, int)
    }
    found = Reference(feed, original(feed), dims)
    other = usable("onnxruntime").compile(path, "cpu", threads=1, optimize="none", level="none")
    return replace(found, own=found.error(other(feed)))


def path_of(network: str) -> Path:
    """The file of a network in the corpus, or a file as it is."""
    if network.endswith(".onnx"):
        return Path(network)
    return Path(os.environ["GRAPHPRUNE_CORPUS"], "onnx", f"{network}.onnx")


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape or not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    there = np.isfinite(expected)
    if not there.any():
        return 0.0
    largest = float(np.max(np.abs(found[there].astype(np.float64) - expected[there])))
    return largest / max(float(np.max(np.abs(expected[there]))), 1e-30)
