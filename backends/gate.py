"""The gate: what was pruned to be faster must be shown to be faster where it will run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphprune.backends.measure import Comparison
from graphprune.backends.race import LOADS, race
from graphprune.errors import SlowerError

__all__ = ["faster", "require_faster"]

AGAIN = 4
"""How many times as long is measured where nothing is shown at first."""


def faster(
    before: Any,
    after: Any,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    backend: str = "onnxruntime",
    target: str = "cpu",
    repeats: int = 30,
    warmup: int = 5,
    threads: int | None = None,
    pin: bool = False,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    allow_slower: bool = False,
    **options: Any,
) -> Comparison:
    """Measure two models (paths, or what the backend compiles) or artifacts side by side: how much faster is ``after``?

    Where no difference is shown, they are measured once more and longer, and that alone counts. The arguments are
    those of :func:`graphprune.backends.race.race`.

    Raises:
        SlowerError: ``after`` is slower, or not shown to be faster, unless ``allow_slower``.
        ModelError: a model does not load or run.
        UsageError: the backend or target is not here.
    """
    for turns in (repeats, AGAIN * repeats):
        found = race(
            (before, after),
            inputs,
            backend=backend,
            target=target,
            warmup=warmup,
            repeats=turns,
            threads=threads,
            pin=pin,
            dims=dims,
            seed=seed,
            **options,
        ).measurement.comparison(1)
        if found.verdict != "no difference shown":
            break
    if not allow_slower:
        require_faster(found, _called(after, "the slim model"), _called(before, "the dense one"))
    return found


def _called(model: Any, otherwise: str) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else otherwise


def require_faster(found: Comparison, after: str, before: str) -> None:
    """Refuse what is not shown to be faster.

    Raises:
        SlowerError: the interval does not lie above 1.
    """
    if found.verdict != "faster":
        remedy = "prune more, round widths to the vector width (--round-to auto), or allow it"
        raise SlowerError(
            f"{after} is not shown to be faster than {before}: {found.text}; "
            f"{remedy if found.shows else f'measure more of them: --repeats 30 --loads {LOADS}'}",
            {"comparison": found.to_dict()},
        )
