"""Latency of ONNX files in ONNX Runtime, in figures alone; :mod:`graphprune.backends.race` has the comparison too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.backends.onnxruntime.sessions import Provider

__all__ = ["Latency", "compare"]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one inference took, in seconds, over ``runs`` runs.

    ``spread`` is the distance between the quartiles; ``bytes`` is what the model takes on disk, external data included.
    """

    model: str
    median: float
    spread: float
    minimum: float
    runs: int
    bytes: int


def compare(
    models: Sequence[str | os.PathLike[str]],
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    warmup: int = 5,
    repeats: int = 30,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> tuple[Latency, ...]:
    """The latency of each model on the same inputs, measured in turns so that a busy machine slows all of them alike.

    Without ``inputs`` random ones are made for the first model, and given to the others where they fit. ``dims`` sets
    symbolic dimensions by name. Raises :class:`ModelError` where a model does not load or run.
    """
    from graphprune.backends.race import race

    found = race(
        models,
        inputs,
        warmup=warmup,
        repeats=repeats,
        threads=threads,
        dims=dims,
        seed=seed,
        providers=providers,
    )
    return tuple(
        Latency(
            model=os.fspath(path),
            median=timing.median,
            spread=timing.spread,
            minimum=timing.minimum,
            runs=timing.runs,
            bytes=executable.stored_bytes(),
        )
        for path, executable, timing in zip(models, found.executables, found.measurement.timings, strict=True)
    )
